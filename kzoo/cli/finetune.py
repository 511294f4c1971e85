"""kzoo finetune: fine-tune a pretrained network on a folder of photos."""

from __future__ import annotations

import shlex

import click

from kzoo.catalog import image_spec
from kzoo.catalog.pretrained import PIXELS
from kzoo.checks import MAX_SEED, PRECISIONS
from kzoo.cli.options import given, on_devices, option_of, seconds, shape, weights_by_class
from kzoo.data.sources import accepted
from kzoo.files import is_model_file
from kzoo.finetuning.options import AUGMENTATIONS, MIXTURES, FinetuneOptions

option = option_of(FinetuneOptions)


@click.command(
    "finetune", epilog=f"PHOTOS: {accepted()}. Example: kzoo finetune photos --model mobilenet_v2 --out runs/photos"
)
@click.argument("photos", required=False)
@click.option(
    "--model",
    metavar="NAME|FILE",
    help="A network of kzoo list; by default the one with the most accurate weights found locally. Or a file of a "
    "Keras model of your own: .keras, .h5, .zip of Teachable Machine.",
)
@click.option(
    "--weights", metavar="TAG|PATH", help="Such as imagenet; by default the most accurate weights found locally."
)
@option(
    "unfreeze",
    metavar="none|auto|STAGE|all",
    help="Which layers to train: the head only, deeper stages as long as it helps, down to STAGE, or all.",
)
@option("epochs", type=click.IntRange(1), help="Epochs of training for each stage.")
@option("learning_rate", type=float, help="Of the top stage that trains; 1e-4 by default, for masks 1e-3.")
@option("batch_size", type=click.IntRange(1), help="Images in a batch while deeper layers train; 16 by default.")
@option("val_fraction", type=float, help="Share of the training photos for validation, without a val part; 0.2.")
@option("budget", callback=seconds, metavar="TIME", help="Limit of the total time, such as 90s, 5m, 1h.")
@option("augment", type=click.Choice(AUGMENTATIONS), help="Augmentation while deeper layers are trained.")
@option("mix", type=click.Choice(MIXTURES), help="Mix images while deeper layers are trained.")
@option("views", type=click.IntRange(0), help="Augmented copies of each photo for training the head.")
@option("shots", type=click.IntRange(1), metavar="K", help="Use only K photos of each class, chosen by the seed.")
@option(
    "class_weights", callback=weights_by_class, metavar="balanced|a=1,b=2", help="Weights of the classes in the loss."
)
@option("label_smoothing", type=float, help="Label smoothing of the loss, in [0, 1).")
@option("focal", type=float, metavar="GAMMA", help="Exponent of the focal loss; 0 is cross-entropy.")
@option("seed", type=click.IntRange(0, MAX_SEED), help="Of all random choices.")
@option("precision", type=click.Choice(PRECISIONS), help="auto: the fastest on this machine.")
@option(
    "input_shape",
    callback=shape,
    metavar="HxWxC",
    help="Size of the input, such as 160x160x3; as published by default.",
)
@option("bits", type=click.IntRange(8, 16), help="Of 16-bit photos, how many bits are used, such as 12.")
@option("strict", help="Stop at unusable photos instead of leaving them out.")
@option("pixels", type=click.Choice(list(PIXELS)), help="What a Keras model takes that does not scale pixels itself.")
@click.option("--out", metavar="RUN", help="The run folder; runs/MODEL-PHOTOS by default.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--quiet", is_flag=True, help="No progress.")
@on_devices
def command(photos, model, weights, out, resume, quiet, together, **options):
    """Fine-tune a pretrained network on PHOTOS, and write a run folder with a report.

    Your own val/ and test/ parts are never trained on. Accuracy is measured on test; val is used for
    validation, or, if there is no test, for measuring.
    """
    if photos is None and not resume:
        raise click.UsageError("Missing argument 'PHOTOS'.")
    if model is not None and not is_model_file(model):
        image_spec(model)  # before Keras is imported: a wrong name is refused at once
    FinetuneOptions(**given(options))
    together.join()
    from kzoo.finetuning.pipeline import finetune_run

    folder = finetune_run(
        photos, model, given(options), weights=weights, out=out, resume=resume, quiet=quiet, together=together
    )
    if not quiet and together.first:
        click.echo(
            f"Wrote {folder}, and {folder}/report.html. Next: kzoo predict {shlex.quote(str(folder))} photo.jpg",
            err=True,
        )
