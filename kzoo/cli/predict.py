"""kzoo predict: classify images with a trained model."""

import csv
import json
import sys

import click

from kzoo.cli.options import as_json, json_printable, load_keras, trust
from kzoo.errors import DataError, printable
from kzoo.evaluating.rows import csv_header, csv_row
from kzoo.files import finite


@click.command("predict", epilog="Example: kzoo predict saved_models/mnist photo.jpg folder/ --csv > seen.csv")
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--with",
    "others",
    multiple=True,
    metavar="MODEL",
    help="Average the probabilities of MODEL and of this one, an ensemble; may be repeated.",
)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="The number of classes to show.")
@click.option("--weights", help="For a model of the catalog: a tag or a file; the first published set by default.")
@click.option(
    "--pixels",
    metavar="RANGE",
    help="What a Keras model of a file takes, if it does not say: 0..255, 0..1, -1..1, imagenet or caffe.",
)
@click.option(
    "--abstain",
    type=float,
    metavar="LEVEL",
    help="Of a run: say where several classes are possible, by its validation images, at a level such as 0.95.",
)
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images computed at once.")
@click.option(
    "--out",
    metavar="DIR|FILE",
    help="DIR: write masks of segmentation there, NAME.png and NAME-overlay.png. FILE.jsonl or FILE.csv: write the "
    "rows there, of any number of images: of folders with all below them, and of lists of names (NAME.txt).",
)
@click.option("--shards", type=click.IntRange(1), metavar="N", help="With a FILE: divide the images by their names.")
@click.option("--shard", type=click.IntRange(0), metavar="I", help="Classify part I of N, 0 to N - 1: FILE-I-of-N.")
@click.option("--resume", is_flag=True, help="With a FILE: go on where an earlier call ended, if there was one.")
@click.option("--force", is_flag=True, help="Replace a FILE that exists.")
@click.option(
    "--tiles", is_flag=True, help="For masks of large pictures: overlapping tiles at their own resolution, not resized."
)
@trust
@as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: image, error, class_1, probability_1, ..., abstain.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    *,
    model,
    images,
    others,
    top,
    weights,
    pixels,
    abstain,
    batch_size,
    out,
    shards,
    shard,
    resume,
    force,
    tiles,
    trust,
    as_json,
    as_csv,
    quiet,
):
    """Classify IMAGES, which are files or folders, with MODEL: a run, an export, a name of the catalog, or a file.

    A file is a Keras model, .keras or .h5, or Teachable Machine's .zip.

    Unreadable images are reported and the others are classified; the exit code is then 1.
    """
    if as_json and as_csv:
        raise click.UsageError("Use either --json or --csv, not both.")
    into_file = out is not None and out.endswith((".jsonl", ".csv"))
    if into_file and (as_json or as_csv):
        raise click.UsageError("The name of the file says whether it is JSON or CSV: leave --json and --csv out.")
    if not into_file and (shards is not None or shard is not None or resume or force):
        raise click.UsageError("--shards, --shard, --resume and --force go with --out FILE.jsonl or FILE.csv.")
    load_keras()
    from kzoo.evaluating.loading import load_model
    from kzoo.evaluating.prediction import predict
    from kzoo.progress import progress

    model = load_model([model, *others] if others else model, weights, pixels=pixels, trust=trust, abstain=abstain)
    if into_file:
        from kzoo.evaluating.many import predict_files

        options = {"shards": shards, "shard": shard, "resume": resume, "force": force}
        written = predict_files(model, images, out, **options, top=top, batch_size=batch_size, tiles=tiles, quiet=quiet)
        if written.unreadable:
            raise DataError(
                f"{written.unreadable:,} of {written.images:,} images could not be read; their rows say why."
            )
        return
    write = _Json() if as_json else _Csv(model.task, top) if as_csv else _Text(model.task)
    bad = total = 0
    with progress(quiet=quiet or sys.stdout.isatty()) as bar:  # there the answers show how far it is

        def advance(done, images):
            if not advance.started:
                bar.start("classifying", images)
                advance.started = True
            bar.advance(done - advance.done)
            advance.done = done

        advance.started, advance.done = False, 0
        for result in predict(model, images, top=top, batch_size=batch_size, out=out, tiles=tiles, progress=advance):
            write.row(result)
            total += 1
            bad += "error" in result
    write.end()
    if bad:
        raise DataError(f"{bad} of {total} images could not be read.")


class _Text:
    """Writes a line for each image."""

    def __init__(self, task):
        self.task = task

    def row(self, result):
        from kzoo.data.guards import shown

        name = shown(result["image"])
        if "error" in result:
            click.echo(f"{name}: {printable(result['error'])}", err=True)
        else:
            click.echo(f"{name}: {printable(self.task.row_text(result))}")

    def end(self):
        pass


class _Json:
    """Writes a JSON list, one element at a time."""

    def __init__(self):
        self.between = "[\n"

    def row(self, result):
        text = json_printable(json.dumps(finite(result), ensure_ascii=False))
        click.echo(f"{self.between}  {text}", nl=False)
        self.between = ",\n"

    def end(self):
        click.echo("[]" if self.between == "[\n" else "\n]")


class _Csv:
    """Writes a row for each image, with the columns of the task."""

    def __init__(self, task, top):
        self.task, self.top, self.file = task, top, csv.writer(sys.stdout)
        self.file.writerow(csv_header(task, top))

    def row(self, result):
        self.file.writerow(csv_row(self.task, self.top, result))

    def end(self):
        sys.stdout.flush()
