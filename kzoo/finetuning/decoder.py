"""Masks: a pretrained network as the encoder of a U-Net. First the new decoder trains, then stages of the encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kzoo.data.batches import decode_split
from kzoo.errors import DataError, RunError
from kzoo.finetuning.checkpoint import StageCheckpoint
from kzoo.finetuning.deeper import Phase, Trained, deadline, outputs_of, save, train_phases
from kzoo.finetuning.options import BATCH
from kzoo.finetuning.parts import MIN_PER_CLASS
from kzoo.finetuning.stage_training import StagePlan
from kzoo.finetuning.stages import HEAD_RATE, STAGE_RATE, selected_stages
from kzoo.progress import progress
from kzoo.tasks import Evaluation
from kzoo.training.recipes import Recipe

LOSS = "cross_entropy+dice"
# Learning rates of AdamW: of the decoder while it is new; of the top stage afterwards, and of the decoder 3 times that.
DECODER_RATE, ENCODER_RATE = 3e-3, 1e-3
AUGMENT = {  # nothing is mirrored unless asked: what a mask names may be a sign or a side
    "none": (),
    "light": (("shift", 0.08), ("rotate", 10.0), ("zoom", 0.15)),
    "strong": (("flip", 0.5), ("shift", 0.12), ("rotate", 15.0), ("zoom", 0.3), ("brightness", 0.2), ("contrast", 0.2)),
}


def train_decoder(
    setup: Any, parts: Any, folder: Path, interrupted: Callable[[], bool]
) -> tuple[Trained, dict[str, Evaluation], list[tuple[str, str]]]:
    """Train the decoder on the frozen encoder, then with the stages that options.unfreeze names, from the top.

    See `kzoo.finetuning.deeper.train_phases`: a stage is kept if the IoU of validation pictures improves. The
    encoder's batch norm stays frozen, the decoder's trains.

    Args:
        setup: what all steps share (`kzoo.finetuning.pipeline.Setup`).
        parts: the pictures (`kzoo.finetuning.parts.Parts`).
        folder: the run's; its model is written at the end.
        interrupted: asked whether to stop.

    Returns:
        (what the phases gave, the evaluation of "val" and "test", (id, reason) of pictures that were left out).

    Raises:
        DataError: there are too few pictures.
        RunError: the budget was too short for an epoch, or training diverged.
    """
    options, task, base, made = setup.options, setup.task, setup.base, setup.extractor
    classes, skipped, ready = setup.data.classes, [], {}
    if "val" not in parts.splits:
        raise DataError(
            f"'{setup.data.name}' has too few pictures to validate on: give at least {MIN_PER_CLASS} to train on, or "
            "val and test parts."
        )
    with progress(quiet=setup.quiet) as bar:
        bar.start("reading", sum(map(len, parts.splits.values())))
        for part, split in parts.splits.items():
            ready[part], bad = decode_split(split, base.input_shape, base.preprocessing, bar.advance)
            skipped += bad
        ready = {part: split for part, split in ready.items() if len(split)}
        if not {"train", "val"} <= ready.keys():
            raise DataError(f"'{setup.data.name}' has no usable picture to train or to validate on.")
        labels = ready["train"].labels
        task.check_labels(labels, classes)
        recipe = Recipe("finetune", "", loss=LOSS, label_smoothing=options.label_smoothing)
        plan = StagePlan(
            options=options,
            task=task,
            loss=task.loss(recipe, task.class_weights(options.class_weights, labels, classes)),
            augment=AUGMENT[options.augment],
            classes=classes,
            shape=base.input_shape,
            preprocessing=base.preprocessing,
            deadline=deadline(setup.clock),
            head=made.decoder,
            batch=options.batch_size or BATCH,
            rate=options.learning_rate or ENCODER_RATE,
            group=setup.group,
        )
        stages = [] if options.unfreeze == "none" else selected_stages(made.encoder, options.unfreeze)
        new = DECODER_RATE * plan.rate / ENCODER_RATE  # while it is new
        phases = [Phase("decoder", [], replace(plan, rate=new * STAGE_RATE / HEAD_RATE))]
        phases += [Phase(stage.name, stages[: i + 1], plan) for i, stage in enumerate(stages)]
        names = [phase.name for phase in phases]
        trained = train_phases(
            setup,
            made.model,
            phases,
            ready,
            store=StageCheckpoint(folder, names, " ".join([base.sha256, *names, *classes])),
            best=("", None),
            bar=bar,
            interrupted=interrupted,
        )
        if not trained.winner:
            raise RunError(
                f"The budget of {options.budget:.0f} s left no time to train the decoder: give it more time."
            )
        with setup.clock.timed("saving"):
            save(made.model, folder)
        measured = {}
        for part in [p for p in ("val", "test") if p in ready]:
            bar.start(f"measuring {part}", len(ready[part]))
            about = {"run": str(folder), "data": setup.data.name, "split": part}
            measured[part] = task.evaluate_batches(outputs_of(made.model, plan, ready[part]), classes, **about)
    return trained, measured, skipped
