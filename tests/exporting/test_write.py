"""Writing an export: the folder proves itself or does not appear."""

import json
import math
import signal
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from scipy.stats import beta
from support.calibrated import drawn
from support.exports import LARGE, RNG, changed, encoded, saved_model_alone

import kzoo
from kzoo.data.dataset import Split
from kzoo.errors import ExportError
from kzoo.exporting import graph, write
from kzoo.exporting.reader import Export, load_saved_model
from kzoo.metrics import choose_temperature
from kzoo.tasks.classification import TASK

ROOT = Path(__file__).resolve().parents[2]


def test_the_conformal_set_covers_what_it_promises():
    p = RNG.dirichlet(np.ones(5) * 0.4, 6000)
    y = (p.cumsum(1) > RNG.uniform(size=(6000, 1))).argmax(1)
    q = write.conformal_threshold(p[:3000], y[:3000], 0.9)["threshold"]
    covered = (p[3000:][np.arange(3000), y[3000:]] >= 1 - q).mean()
    assert 0.88 < covered < 0.92  # three deviations of both halves
    with pytest.raises(ExportError, match="at least 99 validation images; the run has 10"):
        write.conformal_threshold(p[:10], y[:10], 0.99)


def test_the_coverage_of_a_threshold_has_the_interval_of_its_beta_distribution():
    """Of 49 images: drawn anew many times, the true coverage of the threshold lies in it 95 times of 100."""
    p = np.linspace(0.05, 0.95, 49)
    facts = write.conformal_threshold(np.stack([p, 1 - p], 1), np.zeros(49, int), 0.9)
    low, high = facts["coverage"]  # rank 45 of 49: Beta(45, 5)
    np.testing.assert_allclose((low, high), beta.ppf([0.025, 0.975], 45, 5), rtol=1e-9)
    scores = np.sort(RNG.uniform(size=(4000, 49)), 1)[:, 44]  # uniform scores: the threshold is its own coverage
    assert 0.94 < ((scores >= low) & (scores <= high)).mean() < 0.96 and abs(scores.mean() - 0.9) < 0.005


def test_a_temperature_is_exported_only_where_it_helps(monkeypatch):
    """That of a run is taken if the run says why; one of an earlier kzoo is decided on anew."""

    def decided(z, y, temperature=None, reason=""):
        pixels = np.broadcast_to(np.arange(len(y), dtype="uint8")[:, None, None, None], (len(y), 4, 4, 3))
        val = Split(pixels, y, [str(i) for i in range(len(y))])
        monkeypatch.setattr(write, "read_part", lambda *_, **__: ("val", val))
        monkeypatch.setattr(write, "predictor", lambda *_: lambda x: z[x[:, 0, 0, 0]])
        source = SimpleNamespace(task=TASK, model=None, temperature=temperature, temperature_reason=reason)
        *found, _ = write.calibrate(source, precision="float32", quiet=True)
        return found

    z, y = drawn(200, 4, 3.0)
    fitted = choose_temperature(z, y)
    assert decided(z, y) == decided(z, y, 7.0) == [fitted.fitted, fitted.reason] and fitted.fitted > 2
    assert decided(z, y, 7.0, "The run's.") == [7.0, "The run's."]
    temperature, reason = decided(*drawn(12, 4, 1.0))
    assert temperature == 1 and "no scaling" in reason


@pytest.mark.usefixtures("exports_are_checked_in_a_new_process")
def test_an_export_is_not_overwritten_unless_forced(exported, model, tmp_path, monkeypatch):
    out = changed(exported, tmp_path)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def same():
        return {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before

    with pytest.raises(ExportError, match="exists: --force"):
        kzoo.export(model, out=out, quiet=True)
    assert same()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "novel.txt").write_text("years of work")
    with pytest.raises(ExportError, match="is not a kzoo export, so it is not replaced"):
        kzoo.export(model, out=tmp_path / "mine", force=True, quiet=True)
    # A wrong graph: the check in a new process finds it, and the old export stays.
    real = graph.network

    def wrong(network, precision):
        _, form = real(network, precision)
        form.get_layer("predictions").bias.assign([50.0, 0, 0, 0])
        return real(form, precision)

    monkeypatch.setattr(graph, "network", wrong)
    with pytest.raises(ExportError, match="check in a new process failed"):
        kzoo.export(model, out=out, force=True, quiet=True)
    assert same() and not list(tmp_path.glob(".tmp*"))


def test_one_format_that_fails_does_not_lose_the_others(model, tmp_path, monkeypatch, kzoo_command):
    real = write.format_table.write

    def damaged(name, folder, parts):
        found = real(name, folder, parts)
        if name == "keras":
            (folder / "model.keras").write_bytes(b"no model")
        return found

    monkeypatch.setattr(write.format_table, "write", damaged)
    out = tmp_path / "out"
    with pytest.raises(
        ExportError, match=r"out was written with saved_model, but without keras, which failed"
    ) as caught:
        kzoo.export(model, ("saved_model", "keras"), out, quiet=True)
    assert "\n" not in str(caught.value)
    assert kzoo.verify(out)["ok"] and not (out / "model.keras").exists()
    card = json.loads((out / "card.json").read_text())
    assert (
        list(card["formats"]) == ["saved_model"]
        and "keras" not in (out / "card.md").read_text().partition("## Numbers")[0]
    )
    assert card["formats"]["saved_model"]["files"] == ["saved_model.pb"], "its weights are constants"
    assert sum(p.stat().st_size for p in (out / "variables").iterdir()) < 20_000 < model.count_params()
    with pytest.raises(ExportError, match="was not exported: the check in a new process failed"):
        kzoo.export(model, ("keras",), tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()


def test_a_full_disk_leaves_the_old_export(exported, model, tmp_path, monkeypatch):
    out = changed(exported, tmp_path)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(kzoo.KzooError, match="unchanged"):
            kzoo.export(model, out=out, force=True, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert not list(tmp_path.glob(".tmp*"))


def test_a_changed_preprocessing_in_a_run_is_found(tmp_path):
    run = kzoo.train("mnist_softmax", "digits", epochs=1, out=tmp_path / "run", quiet=True)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["preprocessing_sha256"] == run.preprocessing.fingerprint(run.input_shape)
    for key, value in (("scale", 1.0), ("crop", 0.5), ("interpolation", "bicubic"), ("scale", "big")):
        changed = {**config, "preprocessing": {**config["preprocessing"], key: value}}
        (tmp_path / "run" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(kzoo.KzooError, match="preprocessing"):
            kzoo.load_run(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    out = kzoo.export(run, out=tmp_path / "out", abstain=0.9, measure=100, quiet=True)
    card = json.loads((out / "card.json").read_text())
    assert card["measured"]["formats"]["saved_model"]["agree"] == 1.0 and card["measured"]["part"] == "test"
    assert card["conformal"]["images"] == 180 and card["training"]["recipe"]["name"]
    low, high = card["measured"]["original"]["top1_interval"]
    assert low < card["measured"]["original"]["top1"] < high
    out = Export(out).run([encoded((8, 8), "PNG", "L")])
    assert out["abstain"].shape == (1,)


def test_what_can_not_be_exported_is_named(tmp_path, kzoo_command):
    for args, want in (
        (("export", "mnist_softmax"), "No weights are published for mnist_softmax"),
        (("export", "runs/none"), "There is no run"),
        (("export", "resnet5"), "Did you mean 'resnet"),
        (("export", "mnist_softmax", "--format", "onyx"), "Did you mean 'onnx'"),
    ):
        code, _, err = kzoo_command(*args)
        assert code == 1 and want in err and err.count("\n") == 1
    model = kzoo.build("mnist_softmax", seed=0)
    with pytest.raises(ExportError, match="between 0 and 1"):
        kzoo.export(model, abstain=2, out=tmp_path / "x")
    with pytest.raises(ExportError, match="needs a run with a validation part"):
        kzoo.export(model, abstain=0.9, out=tmp_path / "x", quiet=True)
    ends = keras.Model(model.inputs[0], keras.layers.Softmax()(model.output))
    with pytest.raises(ExportError, match="ends in probabilities"):
        kzoo.export(ends, out=tmp_path / "x", quiet=True)
    model.get_layer("predictions").bias.assign(np.full(10, np.nan))
    with pytest.raises(ExportError, match="NaN"):
        kzoo.export(model, out=tmp_path / "x", quiet=True)
    assert not list(tmp_path.iterdir())


def test_the_largest_arrays_are_variables(exported, model, tmp_path):
    """The other tests of this export answer with them; here they are listed, and looked at before they are read."""
    folder = saved_model_alone(exported, tmp_path)
    sizes = [4 * math.prod(v.shape) for v in model.weights]
    large = sum(size for size in sizes if size > LARGE)
    (data,) = (folder / "variables").glob("variables.data-*")
    content = data.read_bytes()
    assert large > 140_000 and large < len(content) < large + 40_000
    assert exported[1]["formats"]["saved_model"]["files"] == [
        "saved_model.pb",
        f"variables/{data.name}",
        "variables/variables.index",
    ]
    data.write_bytes(content[:-100] + bytes(100))
    with pytest.raises(ExportError, match="is corrupt: its hash"):
        Export(folder)
    data.write_bytes(content[:1000])
    with pytest.raises(ExportError, match=r"arrays of .* bytes are listed, and its files have 1,000"):
        load_saved_model(folder)
    data.unlink()
    with pytest.raises(ExportError, match=r"arrays of .* bytes are listed, and its files have 0"):
        Export(folder)
    (folder / "variables" / "variables.index").unlink()
    with pytest.raises(ExportError, match=r"variables.index can't be read \(No such file"):
        Export(folder)
