"""Train deeper layers, stage by stage from the top; a stage is kept if it improves the validation loss."""

from __future__ import annotations

import time

import numpy as np

from kzoo import runs
from kzoo.data.batches import batches, decode_split
from kzoo.finetuning.audit import array_hash, enforce
from kzoo.finetuning.backbone import with_head
from kzoo.finetuning.checkpoint import StageCheckpoint
from kzoo.finetuning.stage_training import StagePlan, train_stage, value_of
from kzoo.finetuning.stages import HEAD, selected_stages
from kzoo.graph.inference import predictor
from kzoo.metrics import label_log_losses, log_losses, top_k_hits
from kzoo.progress import progress

MIN_Z = 2.0  # standard errors by which the log loss must fall
MIN_VAL_IMAGES = 10  # with fewer an improvement can't be told from chance
RESERVED_SHARE = 0.1  # of a budget, for the steps after the training


def deepen(setup, found, heads, folder, interrupted) -> dict:
    """Train the stages that options.unfreeze names, one after the other, each from the best so far.

    A stage is kept if the mean validation log loss falls by more than two standard errors of its photo-by-photo
    differences, and no fewer photos are classified correctly (with several labels a photo: mean average precision does
    not fall); with fewer than MIN_VAL_IMAGES photos none is kept. Two
    standard errors, because each stage's epoch was chosen on the same photos: on ants and bees, gains of 1.3 and 1.9
    standard errors on 49 validation photos were no gains on the 153 held-out ones (accuracy 94.8 %, 96.7 % with the
    head alone). "auto" ends at the first stage that does not improve.

    Args:
        setup, found, heads: what the steps before gave (`kzoo.finetuning.pipeline`).
        folder: the run's; its model is overwritten if a stage was kept.
        interrupted: asked whether to stop.

    Returns:
        The fields of `kzoo.finetuning.pipeline.Best`.
    """
    unfreeze, head, splits = setup.options.unfreeze, heads.head, found.parts.splits
    network = with_head(setup.extractor.model, setup.data.classes)
    network.get_layer(HEAD).set_weights([head.kernel, head.bias])
    stages = selected_stages(network, unfreeze)
    names = [stage.name for stage in stages]
    identity = array_hash(np.concatenate([head.kernel.ravel(), head.bias])) + " ".join(names)
    store = StageCheckpoint(folder, names, identity)
    shape, preprocessing = setup.base.input_shape, setup.base.preprocessing
    phases, history = [], []
    with progress(quiet=setup.quiet) as bar:
        bar.start("reading", len(splits["train"]) + len(splits["val"]))
        ready = {n: decode_split(splits[n], shape, preprocessing, bar.advance)[0] for n in ("train", "val")}
        plan = StagePlan(
            options=setup.options,
            task=setup.task,
            objective=setup.objective(splits["train"].labels),
            classes=setup.data.classes,
            shape=shape,
            preprocessing=preprocessing,
            deadline=_deadline(setup.clock),
        )
        winner, best = "head", _measured(setup.task, head.logits(found.x["val"]), ready["val"].labels)
        why = f"Unfreezing {names[0]} did not improve validation loss"
        values = {v.path: v for v in network.weights}
        _assign(values, store.winner)
        for number in range(len(stages)):
            if number < len(store.done):  # before a kill
                record = store.done[number]
            else:
                record = _stage(
                    network, stages, number, plan, ready, store=store, bar=bar, best=best, interrupted=interrupted
                )
                if record is None:
                    why = f"The budget left no time for {names[number]}"
                    break
                setup.log(record["phase"]["text"] + ".")
            phases.append(record["phase"])
            history += record["rows"]
            why = record["phase"]["text"]
            if record["kept"]:
                winner, best = names[number], (np.array(record["losses"]), _score_of(record))
            elif unfreeze == "auto":
                break
        found_so_far = {"name": winner, "phases": phases, "history": history}
        if winner == "head":
            return {**found_so_far, "outcome": f"The head alone is best: {why}. {heads.text}."}
        logits = {"val": _logits(network, plan, ready["val"])}
        logits["test"] = _logits(network, plan, splits["test"]) if "test" in splits else None
    with setup.clock.timed("saving"):
        for layer in network.layers:
            layer.trainable = True  # so that the saved model can be trained further
        runs.save_model(network, folder / runs.MODEL)
    measure = setup.task.headline_name if setup.task.several else "accuracy"
    outcome = f"Trained down to {winner}: validation {measure} {best[1]:.2%}. {why}."
    return {**found_so_far, "outcome": outcome, "logits": logits}


def _deadline(clock):
    """When the training of stages must end, so that the steps after it fit into the budget."""
    if clock.deadline is None:
        return None
    left = clock.deadline - time.monotonic()
    # These are about as long as computing the features of the held-out part was, and the report.
    return clock.deadline - max(RESERVED_SHARE * clock.budget, min(5.0, left / 2))


def _stage(network, stages, number, plan, splits, *, store, bar, best, interrupted):
    """Train one stage and decide whether it is kept; its record, or None if the budget was too short for an epoch."""
    moving = {v.path: v for v in network.weights}
    kept = {path: value_of(v) for path, v in moving.items() if path.split("/")[0] in _layers(stages, number)}
    done = train_stage(
        network, stages[: number + 1], number, plan, splits, store=store, bar=bar, interrupted=interrupted
    )
    if done is None:
        _assign(moving, kept)
        return None
    enforce(done["audit"], stages[number].name)
    losses, score = _measured(plan.task, _logits(network, plan, splits["val"]), splits["val"].labels)
    improves, text = _judged(plan.task, best, losses, score)
    trainable = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    record = {
        "kept": improves,
        "losses": losses.tolist(),
        "score": score,
        "rows": done["rows"],
        "phase": {
            "name": stages[number].name,
            "seconds": done["seconds"],
            "trainable": [HEAD, *(n for s in stages[: number + 1] for n in s.layers)],
            "trainable_parameters": trainable,
            "frozen_parameters": int(network.count_params()) - trainable,
            "audit": done["audit"],
            "val_mean_average_precision" if plan.task.several else "val_accuracy": score,
            "text": f"{stages[number].name} {text}",
        },
    }
    after = {path: value_of(moving[path]) for path in kept} if improves else None
    if not improves:
        _assign(moving, kept)
    store.finish_stage(record, after)
    return record


def _judged(task, best, losses, score):
    """(whether a stage improves on the best so far, the reason in words). best: (losses photo by photo, score)."""
    difference = best[0] - losses
    gain, n = difference.mean(), len(difference)
    needed = MIN_Z * difference.std(ddof=1) / np.sqrt(n) if n >= MIN_VAL_IMAGES else np.inf
    improves = bool(gain > needed and score >= best[1])
    measure = task.headline_name if task.several else "accuracy"
    text = (
        f"{'kept' if improves else 'not kept'}: log loss {best[0].mean():.4f} to {losses.mean():.4f}, {measure} "
        f"{best[1]:.2%} to {score:.2%} on {n:,} validation photos"
    )
    if not improves and gain > 0:
        within = f"within two standard errors ({needed:.4f})"
        few = f"fewer than {MIN_VAL_IMAGES} photos can't tell an improvement from chance"
        chance = within if n >= MIN_VAL_IMAGES else few
        lower = "mAP falls" if task.several else "fewer photos are classified correctly"
        text += f"; {chance}" if gain <= needed else f"; {lower}"
    return improves, text


def _layers(stages, number):
    return {HEAD, *(name for stage in stages[: number + 1] for name in stage.layers)}


def _assign(variables, values):
    for path, value in (values or {}).items():
        variables[path].assign(value)


def _measured(task, logits, labels):
    """(log loss of each photo, the accuracy; with several labels a photo their mean average precision)."""
    if task.several:
        # A validation part without any label says nothing of the ranking: 0 before and after.
        return label_log_losses(logits, labels), task.scores(logits, labels)["mean_average_precision"] or 0.0
    return log_losses(logits, labels), float(top_k_hits(logits, labels).mean())


def _score_of(record):
    """The score of a stage; a checkpoint of kzoo 0.1.0 has which photos were right."""
    return record["score"] if "score" in record else float(np.mean(record["right"]))


def _logits(network, plan, split):
    """The logits (N, classes) of a part, by the network's inference form."""
    predict = predictor(network)
    return np.concatenate([predict(x) for x, _ in batches(split, plan.shape, plan.preprocessing, 32)])
