"""From pictures to the picture: the same bits for a seed, resumed, within a budget; bad input is refused."""

import json
import os
import re
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.style import CONTENT, LAYERS, NETWORKS, OTHER, SMALL, STYLE, picture, stylize

import kzoo
from kzoo.catalog.pretrained import OFFLINE_STYLE
from kzoo.errors import DataError, KzooError, WeightsError
from kzoo.interrupt import Interrupted
from kzoo.style import colour, transfer
from kzoo.style.network import style_network
from kzoo.style.settings import Settings
from kzoo.style.transfer import with_weights
from kzoo.synthesis import descent, pictures
from kzoo.synthesis.objective import CompiledNetwork, StyleObjective


def test_deterministic_and_monotone(tmp_path):
    first = stylize(CONTENT, STYLE, out=tmp_path / "a.png", networks={})
    again = stylize(CONTENT, STYLE, networks={})
    np.testing.assert_array_equal(again.picture, first.picture)
    assert [r["loss"] for r in again.history] == [r["loss"] for r in first.history]
    for size in (45, 64):
        losses = [r["loss"] for r in first.history if r["size"] == size]
        assert len(losses) > 2 and all(b < a for a, b in pairwise(losses))
    assert first.picture.shape == (62, 64, 3) and first.picture.dtype == np.uint8
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-compare.png", "a-loss.png", "a.png"]
    np.testing.assert_array_equal(pictures.read_picture(tmp_path / "a.png"), first.picture)
    assert pictures.read_picture(tmp_path / "a-compare.png").shape[0] == 62


@cache
def plain(**options):
    """The pictures that several tests compare theirs with."""
    return stylize(CONTENT, STYLE, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "evaluations": 40},
        {"init": "noise", "seed": 3, "evaluations": 24},
        {"start_noise": 0.0},
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
    assert not np.array_equal(result.picture, plain().picture)


def begun(content=CONTENT, **options):
    settings = Settings.of({**SMALL, **options})
    return transfer.StyleTransfer(content, [STYLE], settings, quiet=True, networks=NETWORKS)


def test_it_begins_with_a_little_noise_on_the_content(files):
    """Seeded, and with none where a picture is given: a film's frame begins with the one before."""
    small = np.clip(pictures.resized(CONTENT, (44, 45)), 0, 255)
    noise = begun(margin=0).first()[0] - small
    assert abs(noise.std() / 4 - 1) < 0.05 and abs(noise.mean()) < 0.2
    np.testing.assert_array_equal(begun(margin=0).first()[0] - small, noise)
    assert not np.array_equal(begun(margin=0, seed=1).first()[0] - small, noise)
    np.testing.assert_array_equal(begun(margin=0, start_noise=0.0).first()[0], small)
    other = np.clip(pictures.resized(OTHER, (44, 45)), 0, 255)
    np.testing.assert_array_equal(begun(margin=0, init=str(files / "other.png")).first()[0], other)


def test_the_change_of_the_start_is_enlarged_and_no_detail_lost(files):
    change = np.random.default_rng(0).normal(0, 9, (1, 44, 45, 3)).astype("float32")
    larger = pictures.resized(change[0], (62, 64))[None]
    for start, options in ((CONTENT, {}), (OTHER, {"init": str(files / "other.png")})):
        small, large = (np.clip(pictures.resized(start, n), 0, 255)[None] for n in ((44, 45), (62, 64)))
        grown = begun(margin=0, **options).grown(small + change, (62, 64))
        np.testing.assert_allclose(grown, large + larger, atol=1e-3)
    np.testing.assert_array_equal(begun(margin=0, init="noise").grown(change, (62, 64)), larger)


def test_a_margin_is_painted_and_cut_off():
    made = begun(margin=4, start_noise=0.0)
    x, small = made.first(), np.clip(pictures.resized(CONTENT, (44, 45)), 0, 255)[None]
    assert x.shape == (1, 52, 53, 3) and made.objective(45).shape == x.shape
    np.testing.assert_array_equal(made.inside(x), small)
    np.testing.assert_array_equal(x[:, 3], x[:, 5])  # mirrored at row 4, the first of the picture
    np.testing.assert_array_equal(x[:, :, -4], x[:, :, -6])
    np.testing.assert_array_equal(made.finished(x, 45), small[0].round())
    larger = made.grown(x, (62, 64))
    np.testing.assert_allclose(made.inside(larger)[0], np.clip(pictures.resized(CONTENT, (62, 64)), 0, 255), atol=1e-3)
    np.testing.assert_array_equal(larger, made.framed(made.inside(larger)))


def test_a_flat_picture_gets_no_frame():
    """Without a margin the colours of its outermost pixels are far from those of the others."""
    flat, away = np.full((64, 64, 3), 150, "uint8"), []
    for margin in (0, 8):
        x = stylize(flat, STYLE, margin=margin, evaluations=24).picture.astype(float)
        x -= x[8:-8, 8:-8].mean((0, 1))
        away.append(max(np.abs(side.mean((0, 1))).mean() for side in (x[:2], x[-2:], x[:, :2], x[:, -2:])))
    assert away[1] < away[0] / 2, away


def test_tiles_change_no_pixel():
    tiled, whole = (result.picture.astype(int) for result in (stylize(CONTENT, STYLE, tile=16), plain()))
    assert np.abs(tiled - whole).max() <= 1


def test_what_is_saved_is_what_was_optimised():
    """Without the range's weight, cutting off at 0 and 255 changes the Grams."""
    compiled = CompiledNetwork(style_network("vgg11", "random", picture=STYLE, **LAYERS)[0])
    strong = picture(70, 72, 4) // 128 * 255  # black and white: nothing but the ends of the range
    objective = StyleObjective(compiled, pictures.resized(CONTENT, (62, 64))[None], [strong[None].astype("float32")])
    distance = {}
    for weight in (0.0, 1e-6):
        made = stylize(CONTENT, strong, range_weight=weight, evaluations=60).picture
        distance[weight] = np.mean(list(objective.distances(made[None].astype("float32")).values()))
    assert distance[1e-6] < distance[0.0]


def test_luminance_keeps_the_colours():
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
    whole = plain(**options)
    with monkeypatch.context() as m:
        m.setattr(transfer, "interruptible", lambda kept: stopping(after))
        with pytest.raises(Interrupted):
            stylize(CONTENT, STYLE, out=out, **options)
    assert pictures.read_picture(out).shape == (44, 45, 3) and (tmp_path / "a.state").is_file()
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
        except transfer.StepAborted:
            broken.append(len(made))
            raise

    monkeypatch.setattr(transfer.LBFGS, "C2", 0.05)
    monkeypatch.setattr(transfer.LBFGS, "step", watched)
    whole, out = stylize(CONTENT, STYLE, evaluations=30), tmp_path / "a.png"
    for after in range(8, 14):
        with monkeypatch.context() as m:
            m.setattr(transfer, "interruptible", lambda kept, after=after: stopping(after))
            with pytest.raises(Interrupted):
                stylize(CONTENT, STYLE, out=out, evaluations=30, force=True)
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
    monkeypatch.setattr(transfer.StyleTransfer, "save", lambda self, descent, side: saved.append((side, descent.used)))
    stylize(CONTENT, STYLE, out=tmp_path / "a.png", evaluations=24, save_every=4, report=False)
    assert {side for side, _ in saved} == {45, 64} and 4 <= len(saved) <= 6


def test_budget(monkeypatch):
    """On a clock that only evaluations move: 0.12 s for one at 64 pixels, half of it at 45."""
    evaluate, now = StyleObjective.__call__, [100.0]

    def timed(self, x):
        now[0] += x.size / 1e5
        return evaluate(self, x)

    monkeypatch.setattr(StyleObjective, "__call__", timed)
    for module in (transfer, descent):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    result = stylize(CONTENT, STYLE, budget=4.0)
    # All of it is used but for the reserve and what is too short for one more evaluation.
    assert 3.0 - 0.12 < now[0] - 100.0 <= 3.0
    half = max(r["seconds"] for r in result.history if r["size"] == 45)
    assert abs(half / 3.0 - 1 / 3) < 0.1, "the sizes share the time as their pixels are: 1 to 2"
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
        ({"start_noise": -1}, "start_noise"),
        ({"evaluations": 0}, "evaluations"),
        ({"evaluations": 2.5}, "evaluations"),
        ({"optimizer": "sgd"}, "optimizer 'sgd'"),
        ({"model": 5}, "model must"),
        ({"weights": None}, "weights must"),
        ({"seed": 1.5}, "seed must"),
        ({"masks": (("a",),)}, "pairs"),
        ({"pooling": "mean"}, "Unknown pooling"),
        ({"padding": "reflect"}, "Unknown padding"),
        ({"style_layers": (1,)}, "style_layers"),
        ({"style_weights": 3}, "can't be used"),
        ({"colour": 1}, r"Unknown option of stylize\(\) 'colour'"),
        ({"style_weights": (1, 2)}, "2 numbers"),
        ({"style_weights": (0,)}, "not all 0"),
        ({"layer_weights": (1,)}, "layer_weights"),
        ({"style_weight": 1e300}, r"at most 1e\+15"),
        ({"style_layers": ("block1_conv1", "block1_conv1")}, "names a layer twice"),
        ({"budget": "2m"}, "budget must be a number of seconds"),
        ({"size": 20}, "would be 20x19"),
        ({"tile": -1}, "tile"),
        ({"model": "vgg"}, "Unknown model"),
        ({"style_layers": ("fc9",)}, "Unknown layer"),
        ({"weights": "nix"}, "weights"),
        ({"weights": "no/such.npz"}, "no weights file"),
        ({"init": "no.png"}, "no.png"),
        ({"out": "a.webp"}, "PNG or a JPEG"),
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
    with pytest.raises(KzooError, match="styles is empty"):
        stylize(CONTENT, [])
    for array in (CONTENT[0], CONTENT[..., :2], CONTENT / 255):
        with pytest.raises(DataError):
            stylize(array, STYLE)


def test_a_result_that_could_not_be_written_is_told_before_the_work(files):
    (files / "folder.png").mkdir()
    for name, reason in ((files / "folder.png", "is a folder"), (files / f"{'x' * 245}.png", "Can't write .*too long")):
        with pytest.raises(KzooError, match=reason):
            stylize(files / "content.png", files / "style.png", out=name, weights="nonsense/no.npz")


def test_like_for_a_picture_of_another_shape(capsys):
    made = Settings(weights="random", size=96, coarsest=32, evaluations=(2, 2, 3))
    wide = np.ascontiguousarray(np.repeat(CONTENT[:60], 2, 1))
    result = kzoo.stylize(wide, STYLE, settings=made, model="vgg11")
    assert sum(result.record["settings"]["evaluations"]) >= 7 and "7 are shared out" in capsys.readouterr().err


def test_a_grey_style_has_no_colours_to_match(capsys):
    options = {**SMALL, "evaluations": 1, "preserve_color": "histogram", "networks": NETWORKS}
    kzoo.stylize(CONTENT, STYLE[..., :1].repeat(3, -1), **options)
    assert "The style is grey or of one hue" in capsys.readouterr().err
    kzoo.stylize(CONTENT, STYLE, **options)
    assert "one hue" not in capsys.readouterr().err


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
    assert pictures.read_record(result.path)["content"] == str(name)


def test_where_imagenet_cannot_be_had_kzoo_uses_its_own(monkeypatch, capsys):
    def offline(weights, **_):
        raise WeightsError("Can't download it.")

    monkeypatch.setattr(transfer, "fetch", offline)
    found = with_weights(Settings())
    assert (found.model, found.weights) == OFFLINE_STYLE and "Can't download it" in capsys.readouterr().err
    with pytest.raises(WeightsError):
        with_weights(Settings(style_layers=("block3_conv2",)))  # of vgg19, which the other may not have
    with pytest.raises(WeightsError):
        with_weights(Settings(model="vgg16"))
    monkeypatch.setattr(transfer, "fetch", lambda weights, **_: "file")
    assert with_weights(Settings(model="vgg_cifar10")).weights == "cifar10"
    assert with_weights(Settings()).weights == "imagenet"
    assert with_weights(Settings(weights="random")) == Settings(weights="random")


def test_kzoos_own_weights_paint():
    result = kzoo.stylize(CONTENT, STYLE, weights="cifar10", size=64, evaluations=8, quiet=True)
    settings = result.record["settings"]
    assert (settings["model"], settings["weights"]) == OFFLINE_STYLE
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_keywords_take_precedence_over_settings_even_where_they_are_the_default():
    settings = Settings(**{**SMALL, "average": True, "evaluations": 2})
    kept, changed = (
        kzoo.stylize(CONTENT, STYLE, settings=settings, quiet=True, networks=NETWORKS, **given)
        for given in ({}, {"average": False})
    )
    assert kept.record["settings"]["average"] and not changed.record["settings"]["average"]
    assert kept.record["settings"]["size"] == changed.record["settings"]["size"] == SMALL["size"]


def said_by(capsys, **options):
    capsys.readouterr()
    result = kzoo.stylize(CONTENT, STYLE, **{**SMALL, "networks": NETWORKS, **options})
    return result, capsys.readouterr().err


def test_published_weights_that_mean_nothing_are_said_with_some_that_do(capsys):
    """Those of the message weigh style and content as the default does, at the size of the result."""
    result, err = said_by(capsys, balance="paper", style_weight=1e-9, coarsest=0)  # begins with the content itself
    found = re.search(r"weighs the style (\S+) times the content.*--style-weight (\S+) is as much", err)
    assert float(found[1]) < 10 and "hardly differs from the content" in err
    content = np.clip(pictures.resized(CONTENT, (62, 64)), 0, 255)
    np.testing.assert_allclose(result.record["change"], np.abs(result.picture - content).mean(), rtol=1e-6)
    wanted = Settings.of({**SMALL, "balance": "paper", "style_weight": float(found[2])})
    made = transfer.StyleTransfer(CONTENT, [STYLE], wanted, quiet=True, networks=NETWORKS)
    np.testing.assert_allclose(made.objective(64).relative_weight, 100, rtol=0.15)
    for options in ({"balance": "paper", "style_weight": float(found[2])}, {}):
        assert "weighs" not in said_by(capsys, evaluations=2, **options)[1]
    assert not said_by(capsys, balance="paper", style_weight=1e-9, evaluations=2, quiet=True)[1]


def test_what_a_picture_may_silently_be_is_said(capsys):
    made = transfer.StyleTransfer(CONTENT, [STYLE, OTHER], Settings.of(SMALL), quiet=True, networks=NETWORKS)
    sharp = np.clip(pictures.resized(CONTENT, (62, 64)), 0, 255)
    styles = [np.clip(pictures.resized(s, pictures.fitted(s.shape, 64)), 0, 255) for s in (STYLE, OTHER)]
    least = min(map(pictures.detail, [sharp, *styles]))
    found = made.measure(sharp.round().astype("uint8"))
    assert found["change"] < 0.5
    np.testing.assert_allclose(found["detail"], pictures.detail(sharp.round()) / least, rtol=1e-9)
    flat = np.full((62, 64, 3), 99, "uint8")
    assert made.measure(flat)["detail"] == 0
    made.styles = [flat]
    assert made.measure(flat)["detail"] is None, "nothing to be blurred"
    made.done = [9, 4]
    for change, detail, words in (
        (4.9, 1.0, "hardly differs from the content, by 4.9 grey levels"),
        (20.0, 0.3, "blurred: it has 30% of the fine detail"),
        (20.0, 0.6, ""),
        (20.0, None, ""),
    ):
        made.record.update(change=change, detail=detail)
        made.tell_measures()
        err = capsys.readouterr().err
        assert words in err and bool(err) == bool(words)
        assert ("more --evaluations" in err and ("4 evaluations" in err or change < 5)) == bool(words)


@pytest.mark.parametrize("evaluations", [5, 8])
def test_as_many_evaluations_are_made_as_were_asked_for(evaluations, monkeypatch):
    """Over one size where there are too few for a first step of each."""
    made, evaluate = [], descent.Descent.evaluate

    def counted(self, x):
        found = evaluate(self, x)
        made.append(x.shape)
        return found

    monkeypatch.setattr(descent.Descent, "evaluate", counted)
    result = stylize(CONTENT, STYLE, evaluations=evaluations, coarsest=24)
    assert len(made) == evaluations == sum(result.record["settings"]["evaluations"])


def test_nothing_that_exists_is_replaced_without_force(tmp_path):
    out = tmp_path / "a.png"
    for name in ("a.png", "a-compare.png", "a-loss.png", "a.state"):
        (tmp_path / name).write_bytes(b"theirs")
        with pytest.raises(KzooError, match=rf"{name} .*--force \(force=True\)"):
            stylize(CONTENT, STYLE, out=out, evaluations=3, report=True)
        assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"theirs"]
        (tmp_path / name).unlink()
    stylize(CONTENT, STYLE, out=out, evaluations=3)
    stylize(CONTENT, STYLE, out=out, evaluations=3, force=True)


def test_a_jpeg_carries_its_settings(tmp_path):
    made = stylize(CONTENT, STYLE, out=tmp_path / "a.jpg", evaluations=3)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "JPEG" and np.abs(np.asarray(image, float) - made.picture).mean() < 6
    found = pictures.read_record(tmp_path / "a.jpg")
    assert found["settings"]["evaluations"] == [3] and found["last"] == json.loads(json.dumps(made.record["last"]))
