"""Ensembles: averaged probabilities against NumPy, the comparison with the members, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.errors import DataError, KzooError, RunError
from kzoo.evaluating.ensemble import measure_ensemble
from kzoo.exporting.ensemble import check_alike
from kzoo.metrics import calibration_error
from kzoo.tasks import find
from kzoo.tasks.task import Task

NAMES = ("softmax", "mlp", "small")


def probabilities(rows):
    return np.array([[t["probability"] for t in sorted(row["top"], key=lambda t: int(t["class"]))] for row in rows])


def changed(members, tmp_path, **settings):
    """A copy of "mlp" with other settings in its config.json."""
    shutil.copytree(members / "mlp", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text("utf-8"))
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, **settings}), "utf-8")
    return tmp_path / "other"


def test_evaluate_and_predict_average_the_members(members, tmp_path, kzoo_command, monkeypatch):
    runs = [members / name for name in NAMES]
    with np.load(members / "digits.npz") as data:
        np.savez(tmp_path / "test.npz", x_test=data["x_test"])
        labels = data["y_test"]
    each = [probabilities(kzoo.predict(run, tmp_path / "test.npz", top=10)) for run in runs]
    each[1] = np.sqrt(each[1])  # the temperature 2 that "mlp" records
    each[1] /= each[1].sum(1, keepdims=True)
    want = np.mean(each, 0)

    found = probabilities(kzoo.predict(runs, tmp_path / "test.npz", top=10))
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-9)
    result = kzoo.evaluate(runs, quiet=True)
    assert (result.split, result.images, result.run) == ("test", 200, " + ".join(map(str, runs)))
    own = labels[:, None]
    for p, row in zip(
        (*each, want), (*result.members, {"top1": result.top1, "loss": result.loss, "ece": result.ece}), strict=True
    ):
        np.testing.assert_allclose(row["top1"], np.mean(p.argmax(1) == labels))
        np.testing.assert_allclose(row["loss"], -np.log(np.take_along_axis(p, own, 1)).mean(), rtol=1e-4)
        np.testing.assert_allclose(row["ece"], calibration_error(p, labels), atol=1e-5)
    assert [m["temperature"] for m in result.members] == [1, 2, 1]
    assert result.members[0]["top1"] == kzoo.evaluate(runs[0], quiet=True).top1
    gain = result.gains["top1"]
    best = max(range(3), key=lambda i: result.members[i]["top1"])
    one, all_ = each[best].argmax(1) == labels, want.argmax(1) == labels
    assert gain["member"] == str(runs[best])
    assert (gain["gained"], gain["lost"]) == (int((all_ & ~one).sum()), int((one & ~all_).sum()))
    np.testing.assert_allclose(gain["change"], all_.mean() - one.mean())

    lines = str(result).splitlines()
    names = ["softmax", "mlp", "small"] if max(map(len, map(str, runs))) > 34 else [*map(str, runs)]
    assert [line.split()[0] for line in lines[-10:-6]] == [*names, "ensemble"]
    assert lines[-4].startswith(f"top-1     {100 * gain['change']:+.2f} [")
    monkeypatch.chdir(members)
    code, out, err = kzoo_command("evaluate", "softmax", "mlp", "--json", "--split", "val")
    assert code == 0 and json.loads(out)["images"] == 100 and len(json.loads(out)["members"]) == 2
    assert "Wrote" not in err


def test_predict_with_others(members, tmp_path, kzoo_command):
    runs = [members / name for name in NAMES]
    Image.fromarray(np.zeros((9, 9), "uint8")).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    options = ("--with", runs[1], "--with", runs[2], "--json")
    code, out, _ = kzoo_command("predict", runs[0], tmp_path / "a.png", tmp_path / "b.png", *options)
    good, bad = json.loads(out)
    assert good == next(kzoo.predict(runs, tmp_path / "a.png"))
    assert code == 1 and bad["error"] == "is not a JPEG, PNG, GIF, BMP or WebP image"


def test_the_gain_is_paired():
    """Two members whose mistakes differ, and an average that is always right."""
    labels = np.zeros(40, int)
    sure, wrong = [4.0, 0.0], [0.0, 1.0]
    a, b = np.array([sure] * 30 + [wrong] * 10), np.array([wrong] * 5 + [sure] * 35)
    result = measure_ensemble(
        find("classification"), ("x", "y"), ["a", "b"], [a, b], [1.0, 1.0], labels, data="d", split="test"
    )
    assert result.top1 == 1.0 and [m["top1"] for m in result.members] == [0.75, 0.875]
    gain = result.gains["top1"]
    assert (gain["member"], gain["gained"], gain["lost"], gain["change"], gain["p"]) == ("b", 5, 0, 0.125, 0.0625)
    assert gain["interval"][0] < 0.125 < gain["interval"][1]
    # The mean loss of "b" and of the average, in closed form: 35 images with the margin 4, five with the margin -1.
    p, q = 1 / (1 + np.exp(-4)), 1 / (1 + np.exp(1))
    loss = result.gains["loss"]
    np.testing.assert_allclose(result.members[1]["loss"], -(35 * np.log(p) + 5 * np.log(q)) / 40)
    np.testing.assert_allclose(result.loss, -(25 * np.log(p) + 15 * np.log((p + q) / 2)) / 40)
    np.testing.assert_allclose(loss["change"], result.loss - result.members[1]["loss"])
    assert loss["member"] == "b" and loss["interval"][0] < loss["change"] < loss["interval"][1]
    # In one bin each: 15 images with the confidence (p + q) / 2 and 25 with p, all of them right.
    np.testing.assert_allclose(result.ece, 1 - (15 * (p + q) / 2 + 25 * p) / 40)
    broken = np.where(np.arange(40)[:, None] == 3, np.nan, b)
    result = measure_ensemble(
        find("classification"), ("x", "y"), ["a", "b"], [a, broken], [1.0, 1.0], labels, data="d", split="test"
    )
    assert result.top1 == 39 / 40 and result.average.not_finite == 1, "NaN of a member counts as wrong"
    assert result.gains["loss"] is None and "top-1" in str(result)


def test_what_can_not_be_averaged_is_refused(members, tmp_path, kzoo_command):
    one = members / "mlp"
    for members_, reason in (([one], "two members or more, got 1"), ([], "got 0"), ([one, f"{one}/."], "is twice")):
        for verb in (kzoo.evaluate, lambda runs: kzoo.predict(runs, members / "digits.npz"), kzoo.export):
            with pytest.raises((KzooError, DataError), match=reason):
                verb(members_)
    with pytest.raises(RunError, match="no run folder"):
        kzoo.evaluate([one, tmp_path / "nothing"], quiet=True)
    code, _, err = kzoo_command("evaluate", one, one)
    assert code == 1 and "is twice" in err and err.count("\n") == 1

    class Other(Task):
        name, calibrated = "regression", False

    with pytest.raises(KzooError, match="averages probabilities of classes; the task of a is regression"):
        check_alike([("a", Other(), ()), ("b", Other(), ())])
    with pytest.raises(KzooError, match="The task of b is regression, and that of a classification"):
        check_alike([("a", find("classification"), ("x",)), ("b", Other(), ("x",))])
    with pytest.raises(KzooError, match="The number of classes is 1 in b and 2 in a"):
        check_alike([(n, find("classification"), c) for n, c in (("a", ("x", "y")), ("b", ("x",)))])
    labels = [str(i) for i in (1, 0, *range(2, 10))]
    other = changed(members, tmp_path, classes=labels)
    (other / "labels.txt").write_text("".join(f"{c}\n" for c in labels), "utf-8")
    with pytest.raises(KzooError, match=r"The name of class 0 is '1' in .*other and '0' in .*mlp: the members"):
        kzoo.evaluate([one, other], quiet=True)
    (other / "report.json").write_text('{"temperature": "hot"}', "utf-8")
    with pytest.raises(RunError, match="the temperature 'hot' is no number above 0"):
        next(kzoo.predict([members / "softmax", other], members / "digits.npz"))


def test_every_member_held_out_the_same_images(members, tmp_path):
    one = members / "mlp"
    with np.load(members / "digits.npz") as data:
        arrays = dict(data)
    arrays["x_test"] = 255 - arrays["x_test"]
    np.savez(tmp_path / "digits.npz", **arrays)
    other = changed(members, tmp_path, data=str(tmp_path / "digits.npz"))
    with pytest.raises(RunError, match=r"other \(test of .* hold out different images"):
        kzoo.evaluate([one, other], quiet=True)
    np.savez(tmp_path / "new.npz", x_test=arrays["x_test"], y_test=arrays["y_test"])
    assert kzoo.evaluate([one, other], tmp_path / "new.npz", quiet=True).images == 200
