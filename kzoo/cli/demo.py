"""kzoo demo: fine-tune, test, export, use and look into a network; each step is a command that a user could type."""

from __future__ import annotations

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
@click.option("--out", metavar="FOLDER", help="Keep the results in FOLDER; by default they are deleted.")
def command(out):
    """Fine-tune, test, export and use a network, in about two minutes, without internet or data of your own.

    Every step prints its command, so that you can run it yourself.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="kzoo-demo-") as folder:
            try:
                steps(Path(folder))
            except RunError as e:
                if not hasattr(e, "exit_code"):  # Ctrl-C: its message says what is kept, but the folder is deleted
                    raise
                e.args = ("The demo was stopped and its results were deleted; --out FOLDER keeps them.",)
                raise
        return
    folder = Path(out)
    make_folder(folder)
    if any(folder.iterdir()):
        raise KzooError(f"{folder} is not empty: the demo needs an empty folder.")
    steps(folder)
    click.echo(f"\nAll results are in {folder}.")


def steps(folder: Path) -> None:
    """Run all steps of the demo; their results go into `folder`."""
    began = time.monotonic()
    run, model, pictures = str(folder / "digits"), str(folder / "saved_model"), folder / "pictures"

    heading("1. The catalog", "Classic networks, each built as its paper describes it.")
    kzoo("list")

    heading(
        "2. The cost of a network",
        "Every layer of LeNet-5 (1998): its output, parameters, multiply-adds, receptive field.",
    )
    kzoo("info", "lenet5")

    heading(
        "3. Shipped weights",
        "Small networks that kzoo trained; no download is needed. `kzoo reproduce NAME` trains them again.",
    )
    kzoo("reproduce")

    heading(
        "4. Fine-tune",
        "resnet20 was trained on CIFAR-10, which has ships and frogs. Here it is fine-tuned on 1,438 handwritten "
        "digits from scikit-learn: first a new head on cached features, then all layers, stage by stage from the top.",
    )
    kzoo("finetune", "digits", "--model", "resnet20", "--unfreeze", "all", "--epochs", "5", "--seed", "0", "--out", run)

    heading("5. Evaluate", "359 held-out digits: accuracy, and a confusion matrix.")
    kzoo("evaluate", run)

    heading("6. Export", "The whole classifier as a SavedModel that takes JPEG and PNG files; then check the export.")
    kzoo("export", run, "--out", model)
    kzoo("verify", model)

    heading("7. Predict", "Three of the test digits as image files, classified by the export.")
    kzoo("predict", model, *write_pictures(pictures), "--top", "3")

    heading(
        "8. Look inside",
        "What the network looks at in one of them: the class activation map, integrated gradients, the projection back "
        "to the pixels.",
    )
    digit, methods = str(sorted(pictures.glob("a_*.png"))[0]), "prediction,saliency,integrated,guided"
    kzoo("visualize", run, digit, "--methods", methods, "--out", str(folder / "look"))

    heading("9. Style transfer", "A drawing in the style of another one, by a small VGG that kzoo trained.")
    content, style = write_paintings(pictures)
    kzoo(
        "style",
        content,
        style,
        "--weights",
        OFFLINE_STYLE[1],
        "--size",
        "256",
        "--evaluations",
        "60",
        "--out",
        str(folder / "painted.png"),
    )
    heading(
        "10. The same in one pass",
        "A network that learned three styles paints it in a fraction of a second. Compare painted.png with this one.",
    )
    kzoo("stylenet", "apply", "strokes", content, "--out", str(folder / "painted-in-one-pass"))

    click.echo(f"\nDone in {time.monotonic() - began:.0f} s. Next, use your own photos, with a folder for each class:")
    click.echo("  kzoo finetune my-photos/")


def heading(title: str, text: str) -> None:
    """Print the heading and the description of a step."""
    click.echo()
    click.secho(title, bold=True)
    click.echo(text)


def kzoo(*args: str) -> None:
    """Print a command and run it in this process; an error ends the demo as it would end the command."""
    from kzoo.cli import group

    click.secho("$ " + shlex.join(["kzoo", *args]), fg="cyan")
    sys.stdout.flush()
    group.main(args=list(args), prog_name="kzoo", standalone_mode=False)
    sys.stdout.flush()


def write_paintings(folder: Path) -> list[str]:
    """Write two of kzoo's own paintings as PNG files; returns their paths."""
    from kzoo.data.drawn import painting

    paths = [folder / f"{name}.png" for name in ("glass", "strokes")]
    for path in paths:
        painting(path.stem, side=256).save(path)
    return [str(path) for path in paths]


def write_pictures(folder: Path) -> list[str]:
    """Write three test digits as PNG files, each named after its digit; returns their paths."""
    from PIL import Image

    from kzoo.data.loading import load_data

    data = load_data("digits")
    test = data.splits["test"]
    folder.mkdir(exist_ok=True)
    paths = []
    for i in (3, 60, 200):
        path = folder / f"a_{data.classes[test.labels[i]]}.png"
        digit = Image.fromarray(test.images[i][..., 0])
        digit.resize((64, 64), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    return paths
