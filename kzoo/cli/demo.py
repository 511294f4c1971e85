"""kzoo demo: a real network trained, tested and used, each step as the command that a user would type."""

import shlex
import sys
import tempfile
import time
from pathlib import Path

import click

from kzoo.catalog.pretrained import OFFLINE_STYLE
from kzoo.errors import KzooError, RunError
from kzoo.files import make_folder


@click.command("demo", epilog="Example: kzoo demo --out my-first-run")
@click.option("--out", metavar="FOLDER", help="Keep what the demo makes; a temporary folder by default.")
def command(out):
    """See a real network fine-tuned, tested, exported and used, in about two minutes, without a network or any data.

    Every step prints its command, so that it can be typed again.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="kzoo-demo-") as folder:
            try:
                steps(Path(folder))
            except RunError as e:
                if not hasattr(e, "exit_code"):  # Ctrl-C: what the step kept goes with the folder
                    raise
                e.args = ("The demo was stopped, and nothing is kept; --out FOLDER would keep it.",)
                raise
        return
    folder = Path(out)
    make_folder(folder)
    if any(folder.iterdir()):
        raise KzooError(f"{folder} is not empty: the demo wants a folder of its own.")
    steps(folder)
    click.echo(f"\nEverything that the demo made is in {folder}.")


def steps(folder):
    began = time.monotonic()
    run, model, pictures = str(folder / "digits"), str(folder / "saved_model"), folder / "pictures"

    say("1. What there is", "The catalog holds classic networks, each as its paper has it.")
    kzoo("list")

    say(
        "2. What a network costs",
        "Every layer of LeNet-5 (1998): its output, parameters, multiply-adds, receptive field.",
    )
    kzoo("info", "lenet5")

    say("3. What kzoo trained", "Small weights that kzoo carries: no download. `kzoo reproduce NAME` makes them again.")
    kzoo("reproduce")

    say(
        "4. Fine-tune one",
        "resnet20 knows CIFAR-10's ships and frogs. Now it learns 1,438 real handwritten digits, which come with "
        "scikit-learn: its features once, then a new head, then all layers, stage by stage from the top.",
    )
    kzoo("finetune", "digits", "--model", "resnet20", "--unfreeze", "all", "--epochs", "5", "--seed", "0", "--out", run)

    say("5. Test it", "359 digits that it has never seen: how many it gets right, and which it takes for which.")
    kzoo("evaluate", run)

    say("6. Ship it", "The whole classifier as a SavedModel that takes a JPEG or PNG, and proves itself.")
    kzoo("export", run, "--out", model)
    kzoo("verify", model)

    say("7. Use it", "Three of the test digits as image files, and what the export sees in them.")
    kzoo("predict", model, *write_pictures(pictures), "--top", "3")

    say("8. Paint", "One of kzoo's own drawings, in the style of another, by a small VGG that kzoo trained.")
    kzoo(
        "style",
        *write_paintings(pictures),
        "--weights",
        OFFLINE_STYLE[1],
        "--size",
        "256",
        "--evaluations",
        "60",
        "--out",
        str(folder / "painted.png"),
    )

    click.echo(f"\nDone in {time.monotonic() - began:.0f} s. Now with your own pictures, a folder for each class:")
    click.echo("  kzoo finetune my-pictures/")


def say(title, text):
    click.echo()
    click.secho(title, bold=True)
    click.echo(text)


def kzoo(*args):
    """Print a command and run it here; its errors end the demo as they would end the command."""
    from kzoo.cli import group

    click.secho("$ " + shlex.join(["kzoo", *args]), fg="cyan")
    sys.stdout.flush()
    group.main(args=list(args), prog_name="kzoo", standalone_mode=False)
    sys.stdout.flush()


def write_paintings(folder):
    """Two of kzoo's own paintings as PNG files."""
    from kzoo.data.drawn import painting

    paths = [folder / f"{name}.png" for name in ("glass", "strokes")]
    for path in paths:
        painting(path.stem, side=256).save(path)
    return [str(path) for path in paths]


def write_pictures(folder):
    """Three test digits as PNG files named after what they show."""
    from PIL import Image

    from kzoo.data.loading import load_data

    data = load_data("digits")
    test = data.splits["test"]
    folder.mkdir(exist_ok=True)
    paths = []
    for i in (3, 60, 200):
        path = folder / f"a_{data.classes[test.labels[i]]}.png"
        Image.fromarray(test.images[i, ..., 0]).resize((64, 64), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return paths
