"""From pictures to the picture: the same bits for a seed, on from where it stopped, in time; what is bad is refused."""

import json
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.catalog.pretrained import OFFLINE_STYLE
from kzoo.data import drawn
from kzoo.errors import DataError, KzooError, WeightsError
from kzoo.interrupt import Interrupted
from kzoo.style import transfer
from kzoo.synthesis import memory, pictures
from kzoo.synthesis.network import network
from kzoo.synthesis.objective import Eye, Objective

# A small network without any download; 64 pixels from 45 on.
SMALL = {
    "model": "vgg11",
    "weights": "random",
    "content_layers": ("block2_conv1",),
    "precision": "float32",
    "style_layers": ("block1_conv1", "block2_conv1"),
    "size": 64,
    "coarsest": 45,
    "evaluations": 12,
}
OPTIONS = [
    "--model",
    "vgg11",
    "--weights",
    "random",
    "--content-layers",
    "block2_conv1",
    "--style-layers",
    "block1_conv1,block2_conv1",
    "--size",
    "64",
    "--coarsest",
    "64",
    "--precision",
    "float32",
]
EYES = {}  # compiled once for most tests


def picture(height, width, seed):
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.uniform(0, 255, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))[:height, :width]
    return np.clip(patches + rng.normal(0, 20, patches.shape), 0, 255).astype("uint8")


CONTENT, STYLE, OTHER = picture(70, 72, 0), picture(60, 80, 1), picture(64, 64, 2)


def stylize(*args, **options):
    return kzoo.stylize(*args, quiet=True, **{"eyes": EYES, **SMALL, **options})


@pytest.fixture
def files(tmp_path):
    for name, array in (("content.png", CONTENT), ("style.png", STYLE), ("other.png", OTHER)):
        Image.fromarray(array).save(tmp_path / name)
    return tmp_path


def test_deterministic_and_monotone(tmp_path):
    first = stylize(CONTENT, STYLE, out=tmp_path / "a.png", eyes={})
    again = stylize(CONTENT, STYLE, eyes={})
    np.testing.assert_array_equal(again.picture, first.picture)
    assert [r["loss"] for r in again.history] == [r["loss"] for r in first.history]
    for size in (45, 64):
        losses = [r["loss"] for r in first.history if r["size"] == size]
        assert len(losses) > 2 and all(b < a for a, b in pairwise(losses))
    assert first.picture.shape == (62, 64, 3) and first.picture.dtype == np.uint8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-compare.png", "a-loss.png", "a.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), first.picture)
    assert Image.open(tmp_path / "a-compare.png").height == 62


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "evaluations": 40},
        {"init": "noise", "seed": 3},
        {"preserve_color": "luminance"},
        {"preserve_color": "histogram"},
        {"style_scale": 0.6, "pooling": "max"},
        {"average": True},
        {"tv_weight": 1e-5},
        {"range_weight": 0.0},
        {"balance": "paper", "style_weight": 10.0},
        {"coarsest": 0},
        {"precision": "bfloat16"},
    ],
)
def test_options_lower_the_loss(options):
    result = stylize(CONTENT, STYLE, **options)
    losses = [r["loss"] for r in result.history if r["size"] == 64]
    assert losses[-1] < losses[0]
    assert not np.array_equal(result.picture, stylize(CONTENT, STYLE).picture)


def test_tiles_change_no_pixel():
    tiled, whole = (stylize(CONTENT, STYLE, tile=tile).picture.astype(int) for tile in (16, None))
    assert np.abs(tiled - whole).max() <= 1


def test_what_is_saved_is_what_was_optimised():
    """Without the range's weight, cutting off at 0 and 255 changes the Grams."""
    eye = Eye(network("vgg11", "random", picture=STYLE, **{k: SMALL[k] for k in ("content_layers", "style_layers")}))
    strong = picture(70, 72, 4) // 128 * 255  # black and white: nothing but the ends of the range
    objective = Objective(eye, pictures.resized(CONTENT, (62, 64))[None], [strong[None].astype("float32")])
    distance = {}
    for weight in (0.0, 1e-6):
        made = stylize(CONTENT, strong, range_weight=weight, evaluations=60).picture
        distance[weight] = np.mean(list(objective.distances(made[None].astype("float32")).values()))
    assert distance[1e-6] < distance[0.0]


def test_luminance_keeps_the_colours():
    from kzoo.style import colour

    result = stylize(CONTENT, STYLE, preserve_color="luminance", coarsest=0).picture
    content = np.clip(pictures.resized(CONTENT, result.shape[:2]), 0, 255)

    def colours(p):
        return (p.astype("float64") @ colour.YIQ.T)[..., 1:].ravel()

    assert np.corrcoef(colours(result), colours(content))[0, 1] > 0.95
    assert not np.allclose(colour.luminance(result), colour.luminance(content), atol=5)


@contextmanager
def stopping(after):
    """Ctrl-C, once it was asked for the n-th time."""
    asked = []

    def question():
        asked.append(1)
        return len(asked) >= after

    yield question


@pytest.mark.parametrize("after", [2, 7])
@pytest.mark.parametrize("options", [{}, {"average": True}, {"optimizer": "adam"}])
def test_resumes_bit_for_bit(tmp_path, monkeypatch, after, options):
    out = tmp_path / "a.png"
    whole = stylize(CONTENT, STYLE, **options)
    with monkeypatch.context() as m:
        m.setattr(transfer, "interruptible", lambda kept: stopping(after))
        with pytest.raises(Interrupted):
            stylize(CONTENT, STYLE, out=out, **options)
    assert Image.open(out).size and (tmp_path / "a.state").is_file()
    with pytest.raises(KzooError, match=r"settings\.content_weight"):
        stylize(CONTENT, STYLE, out=out, resume=True, content_weight=2.0, **options)
    with pytest.raises(KzooError, match="fingerprint"):
        stylize(CONTENT, OTHER, out=out, resume=True, **options)
    resumed = stylize(CONTENT, STYLE, out=out, resume=True, **options)
    np.testing.assert_array_equal(resumed.picture, whole.picture)

    def key(h):
        return [(r["size"], r["evaluations"], r["loss"]) for r in h]

    assert key(resumed.history) == key(whole.history)
    assert not (tmp_path / "a.state").exists()
    with pytest.raises(KzooError, match="go on from"):
        stylize(CONTENT, STYLE, out=out, resume=True, **options)


def test_ctrl_c_ends_a_line_search(tmp_path, monkeypatch):
    """Searches that go on until the slope has almost gone; what is resumed makes the broken one again."""
    step, broken = transfer.LBFGS.step, []

    def watched(self, evaluate):
        made = []
        try:
            return step(self, lambda x: (evaluate(x), made.append(x))[0])
        except transfer.Enough:
            broken.append(len(made))
            raise

    monkeypatch.setattr(transfer.LBFGS, "C2", 0.05)
    monkeypatch.setattr(transfer.LBFGS, "step", watched)
    whole, out = stylize(CONTENT, STYLE, evaluations=30), tmp_path / "a.png"
    for after in range(8, 14):
        with monkeypatch.context() as m:
            m.setattr(transfer, "interruptible", lambda kept, after=after: stopping(after))
            with pytest.raises(Interrupted):
                stylize(CONTENT, STYLE, out=out, evaluations=30)
        resumed = stylize(CONTENT, STYLE, out=out, evaluations=30, resume=True)
        np.testing.assert_array_equal(resumed.picture, whole.picture)
        assert resumed.history[-1]["evaluations"] == whole.history[-1]["evaluations"]
    assert max(broken) > 0, "one of them was broken after its first evaluation"


def test_goes_on_in_float32_where_bfloat16_stalls(monkeypatch):
    """The fourth step in bfloat16 finds no way down."""
    step, steps = transfer.LBFGS.step, []

    def stalling(self, evaluate):
        steps.append(1)
        return step(self, evaluate) and len(steps) != 4

    monkeypatch.setattr(transfer.LBFGS, "step", stalling)
    result = stylize(CONTENT, STYLE, precision="bfloat16", evaluations=16)
    used = [r["precision"] for r in result.history]
    assert used[:4] == ["bfloat16"] * 4 and used[4:] == ["float32"] * len(used[4:]) and len(used) > 6


def test_save_every(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(transfer.Job, "save", lambda self, optimiser, side: saved.append((side, self.used)))
    stylize(CONTENT, STYLE, out=tmp_path / "a.png", evaluations=24, save_every=4, report=False)
    assert {side for side, _ in saved} == {45, 64} and 4 <= len(saved) <= 6


def test_budget():
    stylize(CONTENT, STYLE)  # compiled
    began = time.monotonic()
    result = stylize(CONTENT, STYLE, budget=4.0)
    assert 2.0 < time.monotonic() - began < 4.6
    sizes = [r["size"] for r in result.history]
    assert sizes.count(45) > 3 and sizes.count(64) > 3
    made = result.record["settings"]["evaluations"]
    assert len(made) == 2 and sum(made) == result.history[-1]["evaluations"]


def test_masks(files):
    half = np.zeros((70, 72, 3), "uint8")
    half[:, :36] = 255
    Image.fromarray(half).save(files / "left.png")
    Image.fromarray(255 - half).save(files / "right.png")
    pairs = ((str(files / "left.png"), "-"), (str(files / "right.png"), "-"))
    result = stylize(CONTENT, [STYLE, OTHER], masks=pairs)
    swapped = stylize(CONTENT, [OTHER, STYLE], masks=pairs)
    assert not np.array_equal(result.picture, swapped.picture)
    one = stylize(CONTENT, STYLE, masks=((str(files / "left.png"), str(files / "right.png")),))
    assert one.history[-1]["loss"] < one.history[0]["loss"]
    with pytest.raises(KzooError, match="2 masks"):
        stylize(CONTENT, [STYLE, OTHER], masks=pairs[:1])
    with pytest.raises(KzooError, match="content mask"):
        stylize(CONTENT, STYLE, masks=(("-", "-"),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be"),
        ({"size": "big"}, "size must be"),
        ({"style_scale": float("nan")}, "style_scale"),
        ({"content_weight": -1}, "content_weight"),
        ({"evaluations": 0}, "evaluations"),
        ({"evaluations": 2.5}, "evaluations"),
        ({"optimizer": "sgd"}, "optimizer 'sgd'"),
        ({"model": 5}, "model must"),
        ({"weights": None}, "weights must"),
        ({"seed": 1.5}, "seed must"),
        ({"masks": (("a",),)}, "pairs"),
        ({"style_layers": (1,)}, "style_layers"),
        ({"style_weights": 3}, "can't be used"),
        ({"colour": 1}, "Unknown setting"),
        ({"style_weights": (1, 2)}, "2 numbers"),
        ({"style_weights": (0,)}, "not all 0"),
        ({"layer_weights": (1,)}, "layer_weights"),
        ({"size": 20}, "would be 20x19"),
        ({"tile": -1}, "tile"),
        ({"model": "vgg"}, "Unknown model"),
        ({"style_layers": ("fc9",)}, "Unknown layer"),
        ({"weights": "nix"}, "weights"),
        ({"weights": "no/such.npz"}, "no weights file"),
        ({"init": "no.png"}, "no.png"),
        ({"out": "a.jpg"}, "PNG"),
        ({"out": "no/such/a.png"}, "no folder"),
        ({"resume": True}, "need out"),
        ({"masks": (("no.png", "-"),)}, "no.png"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(KzooError, match=message):
        stylize(CONTENT, STYLE, **options)


def test_bad_pictures_are_refused(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(CONTENT).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    Image.fromarray(CONTENT[:8]).save(tmp_path / "tiny.png")
    for name in ("text.jpg", "empty.png", "cut.png", "tiny.png", "missing.png"):
        with pytest.raises(DataError, match=name):
            stylize(tmp_path / name, STYLE)
        with pytest.raises(DataError, match=name):
            stylize(CONTENT, tmp_path / name)
    for array in (CONTENT[0], CONTENT[..., :2], CONTENT / 255):
        with pytest.raises(DataError):
            stylize(array, STYLE)


def test_every_kind_of_picture_is_taken(tmp_path):
    """Grey, palette, alpha, CMYK, 16 bits, animations and EXIF, by the rules of kzoo.data.images."""
    image = Image.fromarray(CONTENT)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("L").save(tmp_path / "grey.png")
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(CONTENT[..., 0].astype("uint16") * 257).save(tmp_path / "deep.png")
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    for path in tmp_path.iterdir():
        expected = (72, 70, 3) if path.name == "turned.jpg" else (70, 72, 3)
        assert pictures.read(path).shape == expected, path


def test_memory_is_refused_with_the_tile_that_fits():
    net = network(
        "vgg11", "random", style_layers=SMALL["style_layers"], content_layers=SMALL["content_layers"], picture=STYLE
    )
    size = (3000, 4000)
    need = memory.needed(net, size, None, "float32")
    memory.check(Eye(net), size, "float32", free=need)
    with pytest.raises(KzooError, match=r"4000x3000 pixels need about .* GB .*: --tile (\d+)") as e:
        memory.check(Eye(net), size, "float32", free=need // 2)
    tile = int(str(e.value).split()[-1].strip("."))
    memory.check(Eye(net, tile), size, "float32", free=need // 2)
    with pytest.raises(KzooError, match="smaller --size"):
        memory.check(Eye(net), size, "float32", free=10**8)


def test_settings():
    settings = transfer.Settings(size=512)
    assert settings.sides((768, 1024)) == (128, 181, 256, 362, 512)
    assert replace(settings, coarsest=0).sides((768, 1024)) == (512,)
    assert transfer.Settings(size=100).sides((50, 1000)) == (100,)
    assert transfer.Settings.of(json.loads(json.dumps(transfer.asdict(settings)))) == settings


# --- the command line ---


def test_command_and_like(files, kzoo_command, monkeypatch):
    monkeypatch.chdir(files)
    code, _, err = kzoo_command("style", "content.png", "style.png", *OPTIONS, "--evaluations", 5)
    assert code == 0 and "Wrote content-style.png" in err
    record = pictures.record("content-style.png")
    assert record["content"] == "content.png" and record["settings"]["evaluations"][0] >= 5
    code, out, err = kzoo_command(
        "style", "--like", "content-style.png", "--out", "again.png", "--no-report", "--json", "--quiet"
    )
    assert code == 0 and err == "" and json.loads(out)[0]["path"] == "again.png"
    np.testing.assert_array_equal(Image.open("again.png"), Image.open("content-style.png"))
    code, _, _ = kzoo_command(
        "style", "other.png", "--like", "content-style.png", "--out", "b.png", "--size", 45, "--quiet"
    )
    assert code == 0 and Image.open("b.png").size == (45, 45) and pictures.record("b.png")["content"] == "other.png"
    for name, text in (("content.png", "carries no settings"), ("no.png", "no.png")):
        code, _, err = kzoo_command("style", "--like", name)
        assert code == 1 and text in err and err.count("\n") == 1


def test_other_weights_than_those_of_like_bring_their_model(files, kzoo_command, monkeypatch):
    monkeypatch.chdir(files)
    quick = ("--size", 40, "--coarsest", 0, "--evaluations", 1, "--no-report", "--quiet")
    assert kzoo_command("style", "content.png", "style.png", "--weights", "cifar10", "--out", "a.png", *quick)[0] == 0
    assert pictures.record("a.png")["settings"]["model"] == "vgg_cifar10"
    code, _, err = kzoo_command("style", "--like", "a.png", "--weights", "random", "--out", "b.png", "--quiet")
    assert (code, err) == (0, "")
    assert pictures.record("b.png")["settings"]["model"] == "vgg19"


def test_command_errors(files, kzoo_command, monkeypatch):
    monkeypatch.chdir(files)
    assert kzoo_command("style")[0] == 2
    assert kzoo_command("style", "content.png")[0] == 2
    assert kzoo_command("style", "content.png", "style.png", "--budget", "soon")[0] == 2
    assert kzoo_command("style", "content.png", "style.png", "--style-weights", "a,b")[0] == 2
    code, _, err = kzoo_command("style", "content.png", "style.png", *OPTIONS, "--from-last")
    assert code == 1 and "folder" in err
    code, _, err = kzoo_command("style", "content.png", "nothing.png", *OPTIONS)
    assert code == 1 and "nothing.png" in err and "Traceback" not in err


def test_a_folder_of_frames(files, kzoo_command):
    (files / "frames").mkdir()
    for name in ("f10.png", "f2.png", "f1.png"):
        Image.fromarray(CONTENT).save(files / "frames" / name)
    (files / "frames" / "notes.txt").write_text("no picture")
    arguments = [
        files / "frames",
        files / "style.png",
        *OPTIONS,
        "--evaluations",
        4,
        "--no-report",
        "--json",
        "--quiet",
    ]
    code, out, _ = kzoo_command("style", *arguments, "--out", files / "painted", "--from-last")
    results = json.loads(out)
    assert code == 0 and [os.path.basename(r["path"]) for r in results] == ["f1.png", "f2.png", "f10.png"]
    assert [r["settings"]["init"] for r in results] == ["content", *(r["path"] for r in results[:2])]
    code, out, _ = kzoo_command("style", *arguments, "--out", files / "painted", "--resume")
    assert code == 0 and json.loads(out) == []
    (files / "frames" / "f3.png").write_bytes((files / "frames" / "f2.png").read_bytes()[:900])
    code, _, err = kzoo_command("style", *arguments, "--out", files / "painted", "--resume")
    assert code == 1 and "f3.png" in err and "1 of 4" in err
    code, _, err = kzoo_command("style", *arguments, "--out", files / "frames")
    assert code == 1 and "overwritten" in err


def test_pictures_that_cannot_be_painted_hide_no_others(files, kzoo_command):
    (files / "some").mkdir()
    Image.fromarray(CONTENT).save(files / "some" / "a.png")
    (files / "some" / "b.png").write_bytes((files / "some" / "a.png").read_bytes()[:900])
    options = (*OPTIONS, "--evaluations", 1, "--no-report", "--json", "--quiet", "--out", files / "painted")
    code, out, err = kzoo_command("style", files / "some", files / "style.png", *options)
    assert code == 1 and "1 of 2" in err and [os.path.basename(r["path"]) for r in json.loads(out)] == ["a.png"]


def test_ctrl_c_between_two_pictures_ends_a_folder(files, monkeypatch):
    """A signal that comes while a picture is written is asked about before the next one begins."""
    from kzoo.style.folder import stylize_folder

    (files / "two").mkdir()
    for name in "ab":
        Image.fromarray(CONTENT).save(files / "two" / f"{name}.png")
    original = pictures.write

    def write(path, *args):
        original(path, *args)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(pictures, "write", write)
    with pytest.raises(Interrupted, match="--resume continues") as e:
        stylize_folder(
            files / "two",
            files / "style.png",
            files / "painted",
            weights="random",
            size=40,
            coarsest=0,
            evaluations=1,
            report=False,
            quiet=True,
        )
    assert e.value.exit_code == 130 and [p.name for p in (files / "painted").iterdir()] == ["a.png"]


def test_a_result_that_could_not_be_written_is_told_before_the_work(files):
    (files / "folder.png").mkdir()
    for name, reason in ((files / "folder.png", "is a folder"), (files / f"{'x' * 245}.png", "Can't write .*too long")):
        with pytest.raises(KzooError, match=reason):
            stylize(files / "content.png", files / "style.png", out=name, weights="nonsense/no.npz")


def test_like_for_a_picture_of_another_shape(capsys):
    made = transfer.Settings(weights="random", size=96, coarsest=32, evaluations=(2, 2, 3))
    wide = np.ascontiguousarray(np.repeat(CONTENT[:60], 2, 1))
    result = kzoo.stylize(wide, STYLE, settings=made, model="vgg11")
    assert sum(result.record["settings"]["evaluations"]) >= 7 and "7 are shared out" in capsys.readouterr().err


def test_kzoos_own_paintings_are_pictures_and_always_the_same():
    for name in drawn.PAINTINGS:
        one = np.asarray(drawn.painting(name, side=128))
        np.testing.assert_array_equal(one, np.asarray(drawn.painting(name, side=128)))
        assert one.shape == (128, 128, 3) and one.dtype == np.uint8 and one.std() > 30
        assert (one != np.asarray(drawn.painting(name, side=128, seed=1))).any()
    with pytest.raises(KzooError, match="Did you mean 'glass'"):
        drawn.painting("gloss")


def test_no_input_is_overwritten(files, kzoo_command):
    before = (files / "content.png").read_bytes()
    with pytest.raises(KzooError, match="would be overwritten"):
        stylize(files / "content.png", files / "style.png", out=files / "content.png")
    stylize(files / "content.png", files / "style.png", out=files / "a.png", evaluations=1)
    made = (files / "a.png").read_bytes()
    code, _, err = kzoo_command("style", "--like", files / "a.png", "--out", files / "a.png", "--style-weight", "5")
    assert code == 1 and "give --out" in err
    assert (files / "content.png").read_bytes() == before and (files / "a.png").read_bytes() == made


def test_a_record_holds_any_file_name(files):
    name = files / os.fsdecode(b"caf\xe9.png")
    name.write_bytes((files / "content.png").read_bytes())
    result = stylize(name, files / "style.png", out=files / "a.png", evaluations=1)
    assert pictures.record(result.path)["content"] == str(name)


def test_where_imagenet_cannot_be_had_kzoo_looks_with_its_own(monkeypatch, capsys):
    def offline(weights, **_):
        raise WeightsError("Can't download it.")

    monkeypatch.setattr(transfer, "fetch", offline)
    found = transfer.settled(transfer.Settings())
    assert (found.model, found.weights) == OFFLINE_STYLE and "Can't download it" in capsys.readouterr().err
    with pytest.raises(WeightsError):
        transfer.settled(transfer.Settings(style_layers=("block3_conv2",)))  # of vgg19, which the other may not have
    with pytest.raises(WeightsError):
        transfer.settled(transfer.Settings(model="vgg16"))
    monkeypatch.setattr(transfer, "fetch", lambda weights, **_: "file")
    assert transfer.settled(transfer.Settings(model="vgg_cifar10")).weights == "cifar10"
    assert transfer.settled(transfer.Settings()).weights == "imagenet"
    assert transfer.settled(transfer.Settings(weights="random")) == transfer.Settings(weights="random")


def test_kzoos_own_weights_paint():
    result = kzoo.stylize(CONTENT, STYLE, weights="cifar10", size=64, evaluations=8, quiet=True)
    settings = result.record["settings"]
    assert (settings["model"], settings["weights"]) == OFFLINE_STYLE
    assert result.history[-1]["loss"] < result.history[0]["loss"]
