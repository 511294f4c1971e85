"""Train deeper layers, stage by stage from the top; a stage is kept if it improves on the validation images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo import runs
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import Split
from kzoo.finetuning.audit import array_hash, enforce
from kzoo.finetuning.backbone import with_head
from kzoo.finetuning.checkpoint import StageCheckpoint
from kzoo.finetuning.judging import Judged, compare
from kzoo.finetuning.options import BATCH
from kzoo.finetuning.stage_training import AUGMENT, StagePlan, head_loss, train_stage, value_of
from kzoo.finetuning.stages import HEAD, STAGE_RATE, Stage, selected_stages
from kzoo.graph.inference import predictor
from kzoo.progress import progress

RESERVED_SHARE = 0.1  # of a budget, for the steps after the training


@dataclass(frozen=True)
class Phase:
    """What trains together, from the best network so far.

    Attributes:
        name: of the phase, that of its lowest stage.
        stages: what trains beside the head.
        plan: how.
    """

    name: str
    stages: list[Stage]
    plan: StagePlan


def deepen(setup, found, heads, folder, interrupted) -> dict:
    """Train the stages that options.unfreeze names, one after the other, each from the best so far.

    See `train_phases`. "auto" ends at the first stage that does not improve.

    Args:
        setup, found, heads: what the steps before gave (`kzoo.finetuning.pipeline`).
        folder: the run's; its model is overwritten if a stage was kept.
        interrupted: asked whether to stop.

    Returns:
        The fields of `kzoo.finetuning.pipeline.Best`.
    """
    head, splits, task = heads.head, found.parts.splits, setup.task
    shape, preprocessing = setup.base.input_shape, setup.base.preprocessing
    with progress(quiet=setup.quiet) as bar:
        bar.start("reading", len(splits["train"]) + len(splits["val"]))
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(
                lambda: {n: decode_split(splits[n], shape, preprocessing, bar.advance)[0] for n in ("train", "val")}
            )
            network = with_head(setup.extractor.model, setup.data.classes)  # meanwhile
            ready = reading.result()
        kernel, bias = setup.group.told_arrays([head.kernel, head.bias])
        network.get_layer(HEAD).set_weights([kernel, bias])
        stages = selected_stages(network, setup.options.unfreeze)
        names = [stage.name for stage in stages]
        identity = array_hash(np.concatenate([kernel.ravel(), bias])) + " ".join(names)
        plan = StagePlan(
            options=setup.options,
            task=task,
            loss=task.loss() if task.several else head_loss(setup.objective(splits["train"].labels)),
            augment=AUGMENT[setup.options.augment],
            classes=setup.data.classes,
            shape=shape,
            preprocessing=preprocessing,
            deadline=deadline(setup.clock),
            batch=setup.options.batch_size or BATCH,
            rate=setup.options.learning_rate or STAGE_RATE,
            group=setup.group,
        )
        done = train_phases(
            setup,
            network,
            [Phase(stage.name, stages[: i + 1], plan) for i, stage in enumerate(stages)],
            ready,
            store=StageCheckpoint(folder, names, identity),
            best=("head", Judged(*task.judge([(head.logits(found.x["val"]), ready["val"].labels)]))),
            bound=setup.group.told(_loss_of(head.logits(found.x["val"]), ready["val"].labels, plan)),
            bar=bar,
            interrupted=interrupted,
        )
        found_so_far = {"name": done.winner, "phases": done.phases, "history": done.history}
        if done.winner == "head":
            return {**found_so_far, "verdict": "The head alone is best.", "why": f"{done.why}. Head: {heads.text}."}
        logits = {"val": _logits(network, plan, ready["val"])}
        logits["test"] = _logits(network, plan, splits["test"]) if "test" in splits else None
    with setup.clock.timed("saving"):
        save(network, folder)
    assert done.best is not None  # the head's, at first
    verdict = f"Trained down to {done.winner}: validation {task.judged_by[1]} {done.best.score:.2%}."
    return {**found_so_far, "verdict": verdict, "why": f"{done.why}.", "logits": logits}


@dataclass(frozen=True)
class Trained:
    """What the phases gave.

    Attributes:
        winner: the name of the best network: of its phase, or that of the network before all phases.
        best: how good it is; None only where no phase was trained and nothing was known before.
        why: what the last phase gave, in words; "" if there was none.
        phases, history: records of the phases, and of their epochs.
    """

    winner: str
    best: Judged | None
    why: str
    phases: list[dict]
    history: list[dict]


def train_phases(
    setup: Any,
    network: keras.Model,
    phases: Sequence[Phase],
    splits: Mapping[str, Split],
    *,
    store: StageCheckpoint,
    best: tuple[str, Judged | None],
    bound: float | None = None,
    bar: Any,
    interrupted: Callable[[], bool],
) -> Trained:
    """Train phases, one after the other, each from the best so far; the network ends with the best weights.

    A phase is kept if the mean validation loss falls by more than two standard errors of its image-by-image
    differences, and the score is no lower; with fewer than MIN_VAL_IMAGES images none is kept. Two standard errors,
    because each phase's epoch was chosen on the same images: on ants and bees, gains of 1.3 and 1.9 standard errors on
    49 validation photos were no gains on the 153 held-out ones (accuracy 94.8 %, 96.7 % with the head alone).

    Args:
        setup: options, clock and log (`kzoo.finetuning.pipeline.Setup`).
        network: as it is before the first phase.
        phases: in order. With unfreeze "auto" the first one that is not kept is the last.
        splits: "train" and "val", with their images decoded.
        store: checkpoint of the phases.
        best: (name, how good it is) of the network as it is; None for one that the first phase replaces in any case.
        bound: the validation loss of that network, in terms of the plan's loss; None: every phase trains all epochs.
            With unfreeze "auto" a phase ends after half of its epochs if it will not get below.
        bar: progress.
        interrupted: asked whether to stop.
    """
    (winner, judged), why, records, history = best, "", [], []
    auto = setup.options.unfreeze == "auto"
    values = {v.path: v for v in network.weights}
    _assign(values, store.winner)
    for number, phase in enumerate(phases):
        if number < len(store.done):  # before a kill
            record = store.done[number]
        else:
            record = _train(
                setup,
                network,
                phase,
                number,
                splits,
                store=store,
                bar=bar,
                best=judged,
                bound=bound if auto else None,
                interrupted=interrupted,
            )
            if record is None:
                why = f"The budget left no time for {phase.name}"
                setup.log(why + ".")
                break
            setup.log(record["phase"]["text"] + ".")
        records.append(record["phase"])
        history += record["rows"]
        why = record["phase"]["text"]
        if record["kept"]:
            score = record["score"] if "score" in record else float(np.mean(record["right"]))  # "right": kzoo 0.1.0
            winner, judged = phase.name, Judged(np.array(record["losses"]), score)
            if bound is not None:
                bound = min(row["val_loss"] for row in record["rows"])
        elif auto:
            break
    return Trained(winner, judged, why, records, history)


def save(network: keras.Model, folder: Path) -> None:
    """Write the network as the run's model, all of it trainable, so that it can be trained further."""
    for layer in network.layers:
        layer.trainable = True
    runs.save_model(network, folder / runs.MODEL)


def deadline(clock: Any) -> float | None:
    """When the training of stages must end, so that the steps after it fit into the budget."""
    if clock.deadline is None:
        return None
    left = clock.deadline - time.monotonic()
    # These are about as long as computing the features of the held-out part was, and the report.
    return clock.deadline - max(RESERVED_SHARE * clock.budget, min(5.0, left / 2))


def _train(setup, network, phase, number, splits, *, store, bar, best, bound, interrupted):
    """Train one phase and decide whether it is kept; its record, or None if the budget was too short for an epoch."""
    plan, moving = phase.plan, {v.path: v for v in network.weights}
    layers = {*plan.head, *(name for stage in phase.stages for name in stage.layers)}
    kept = {path: value_of(v) for path, v in moving.items() if path.split("/")[0] in layers}
    done = train_stage(
        network, phase.stages, number, plan, splits, store=store, bar=bar, interrupted=interrupted, bound=bound
    )
    if done is None:
        _assign(moving, kept)
        return None
    enforce(done["audit"], phase.name)
    task = plan.task
    key = task.judged_by[2]
    if done["hopeless"]:  # nothing is compiled to say so
        row = min(done["rows"], key=lambda r: r["val_loss"])
        losses, score, improves = [], row.get(f"val_{key}"), False  # a metric that training does not show is left out
        text = (
            f"not kept: in {len(done['rows'])} epochs the validation loss did not fall below {bound:.4f}, the lowest "
            f"was {row['val_loss']:.4f}"
        )
    else:
        judged = Judged(*task.judge(outputs_of(network, plan, splits["val"])))
        improves, text = setup.group.told(compare(best, judged, task))
        losses, score = judged.losses.tolist(), judged.score
    trainable = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    record = {
        "kept": improves,
        "losses": losses,
        "score": score,
        "rows": done["rows"],
        "phase": {
            "name": phase.name,
            "seconds": done["seconds"],
            "trainable": [*plan.head, *(n for s in phase.stages for n in s.layers)],
            "trainable_parameters": trainable,
            "frozen_parameters": int(network.count_params()) - trainable,
            "audit": done["audit"],
            **({} if score is None else {f"val_{key}": score}),
            "text": f"{phase.name} {text}",
        },
    }
    after = {path: value_of(moving[path]) for path in kept} if improves else None
    if not improves:
        _assign(moving, kept)
    store.finish_stage(record, after)
    return record


def _loss_of(outputs, labels, plan):
    """The mean of the plan's loss over outputs (N, K) and labels (N,): what Keras calls val_loss."""
    return float(np.mean(plan.loss(plan.task.targets(labels, plan.classes), outputs)))


def _assign(variables, values):
    for path, value in (values or {}).items():
        variables[path].assign(value)


def _logits(network, plan, split):
    """The logits (N, classes) of a part, by the network's inference form."""
    return np.concatenate([z for z, _ in outputs_of(network, plan, split)])


def outputs_of(network: keras.Model, plan: StagePlan, split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(outputs, labels) of a part, batch by batch, by the network's inference form."""
    predict = predictor(network)
    for x, y in batches(split, plan.shape, plan.preprocessing, plan.batch):
        yield predict(x), y.numpy()
