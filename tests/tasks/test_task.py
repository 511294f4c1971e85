"""The seam: two tasks that kzoo does not know go through train, resume, evaluate, predict, export and verify."""

import json
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image
from support import brightness, inverse

import kzoo
from kzoo import runs, tasks
from kzoo.catalog import registry
from kzoo.exporting.reader import Export
from kzoo.tasks.classification import ClassificationEvaluation
from kzoo.tasks.multilabel import MultilabelEvaluation
from kzoo.tasks.segmentation import SegmentationEvaluation
from kzoo.training.recipes import Recipe


@pytest.fixture(
    scope="module",
    params=[brightness, pytest.param(inverse, marks=pytest.mark.deep("2026-11-27"))],
    ids=lambda m: m.TASK.name,
)
def world(request, tmp_path_factory):
    """(the task's module, its run): registered for these tests only."""
    module = request.param
    tasks.register(module.TASK)
    row = kzoo.ModelSpec(
        f"{module.TASK.name}_net",
        f"{module.__name__}:network",
        (8, 8, 1),
        1,
        kzoo.Paper("None", "Nobody", 2026),
        preprocessing=kzoo.Preprocessing(scale=1 / 255, offset=0.0),
        task=module.TASK.name,
    )
    kzoo.register(row)
    out = tmp_path_factory.mktemp(module.TASK.name) / "run"
    plain = Recipe("plain", "for this test", learning_rate=0.05, batch_size=10, epochs=20)
    yield module, kzoo.train(row.name, module.data(), recipe=plain, out=out, quiet=True)
    del tasks.REGISTERED[module.TASK.name], registry.ROWS[row.name]


def test_a_task_goes_through_every_verb(world, tmp_path, kzoo_command):
    module, run = world
    task, data = module.TASK, module.data()
    assert run.config["task"] == task.name and run.task is task
    metric = next(iter(task.metrics))
    history = runs.read_csv(run.path / "history.csv")
    best = json.loads((run.path / "metrics.json").read_text())
    assert best[f"val_{metric}"] < 0.2, "it learns"
    assert min(float(r[f"val_{metric}"]) for r in history) == best[f"val_{metric}"], "lowest is best"

    result = kzoo.evaluate(run, data, quiet=True)
    assert result.split == "test" and result.images == 10
    written = json.loads((run.path / "evaluation-test.json").read_text())
    assert written["loss"] == result.loss and not (run.path / "confusion-test.png").exists()

    pictures = [tmp_path / f"{i}.png" for i in range(2)]
    for path, image in zip(pictures, data.splits["test"].images, strict=False):
        Image.fromarray(image[..., 0]).save(path)
    answers = list(kzoo.predict(run, pictures))
    code, out, _ = kzoo_command("predict", run.path, *pictures)
    assert code == 0 and out.splitlines()[0].endswith(task.row_text(answers[0]))
    code, out, _ = kzoo_command("predict", run.path, *pictures, "--csv")
    assert code == 0 and out.splitlines()[0] == ",".join(["image", "error", *task.columns(5)])

    folder = kzoo.export(run, out=tmp_path / "export", quiet=True)
    card = json.loads((folder / "card.json").read_text())
    assert card["task"] == task.name and kzoo.verify(folder)["ok"]
    export = Export(folder)
    for a, b in zip(kzoo.predict(export, pictures), answers, strict=True):
        key = next(k for k in a if isinstance(a[k], float))
        np.testing.assert_allclose(a[key], b[key], atol=1e-4)
    assert export.answer([b"no image"])[0]["error"] == "is not a JPEG, PNG, GIF, BMP or WebP image"


def test_abstain_needs_a_classifier(world, tmp_path):
    _, run = world
    with pytest.raises(kzoo.KzooError, match="abstain needs a classifier"):
        kzoo.export(run, out=tmp_path / "e", abstain=0.9, quiet=True)


@pytest.mark.parametrize("kind", [ClassificationEvaluation, MultilabelEvaluation, SegmentationEvaluation])
def test_a_notebook_shows_an_evaluation_without_its_thousand_classes(kind):
    names = {f.name for f in fields(kind) if f.init}
    large = {"classes": tuple(map(str, range(1000))), "per_class": [{}] * 1000, "confusion": np.zeros((1000, 1000))}
    found = repr(kind(**{name: large.get(name, 0.5) for name in names}))
    assert len(found) < 300 and "loss=0.5" in found


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(kzoo.KzooError, match=r"Unknown task 'clasification'\. Did you mean 'classification'"):
        tasks.find("clasification")


def test_a_run_of_a_task_that_is_not_registered_says_so(world, monkeypatch):
    module, run = world
    monkeypatch.delitem(tasks.REGISTERED, run.config["task"])
    with pytest.raises(kzoo.KzooError, match=f"Unknown task '{run.config['task']}'.*kzoo.tasks.register"):
        kzoo.evaluate(run, module.data(), quiet=True)
