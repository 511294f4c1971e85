"""Which of a network's deeper layers to train: stage by stage from the top, kept where the choosing part gains."""

from __future__ import annotations

import time

import numpy as np

from kzoo import runs
from kzoo.data.batches import decode_split
from kzoo.finetuning.audit import array_hash, enforce
from kzoo.finetuning.backbone import with_head
from kzoo.finetuning.stages import HEAD, SECONDS_LEFT, Plan, Store, chosen, train_stage, value_of
from kzoo.graph.inference import predictor
from kzoo.progress import progress

SURE = 2.0  # standard errors
FEWEST = 10  # photos that can tell a gain from chance


def deepen(job, head):
    """Train the stages that job.how["unfreeze"] names, one after the other, each from the best so far.

    A stage is kept if the choosing part gains by it: the mean log loss falls by more than two standard errors of its
    photo-by-photo differences, and no fewer photos are right; fewer than FEWEST photos are not believed. Two, because
    each stage's epoch was chosen by the same photos: on ants and bees, gains of 1.3 and 1.9 standard errors on 49
    photos were none on the 153 others (94.8 % right, 96.7 % with the head alone). "auto" ends at the first stage that
    does not gain.
    job: a `kzoo.finetuning.finetuning.Job`, whose phases and history grow. head: the head on the training part.

    Returns ((name of the best phase, logits by part or None for the head's), a sentence). Overwrites the run's model
    if a stage was kept.
    """
    unfreeze = job.how["unfreeze"]
    network = with_head(job.network.model, len(job.data.classes))
    network.get_layer(HEAD).set_weights([head.kernel, head.bias])
    found = chosen(network, unfreeze)
    names = [stage.name for stage in found]
    identity = array_hash(np.concatenate([head.kernel.ravel(), head.bias])) + " ".join(names)
    store = Store(job.folder, names, identity)
    shape, preprocessing = job.base.input_shape, job.base.preprocessing
    with progress(quiet=job.quiet) as bar:
        bar.start("reading", len(job.parts["train"]) + len(job.parts["choose"]))
        splits = {n: decode_split(job.parts[n], shape, preprocessing, bar.advance)[0] for n in ("train", "choose")}
        deadline = None
        if job.deadline is not None:
            left = job.deadline - time.monotonic()
            # What comes after takes about as long as the features of the measuring part did, and the report.
            deadline = job.deadline - max(SECONDS_LEFT * job.budget, min(5.0, left / 2))
        plan = Plan(job.seed, job.how["epochs"], job.how["augment"], job.how["mix"], job.objective(), deadline)
        winner, best = "head", _losses(head.logits(job.x["choose"]), splits["choose"].labels)
        logits, why = None, f"Unfreezing {names[0]} brought nothing"
        values = {v.path: v for v in network.weights}
        _assign(values, store.winner)
        for number in range(len(found)):
            if number < len(store.done):  # before a kill
                record = store.done[number]
            else:
                record = _stage(job, network, found, number, plan, splits, store, bar, best)
                if record is None:
                    why = f"The budget left no time for {names[number]}"
                    break
            job.phases.append(record["phase"])
            job.history += record["rows"]
            why = record["phase"]["text"]
            if record["kept"]:
                winner, best = names[number], (np.array(record["losses"]), np.array(record["right"], bool))
            elif unfreeze == "auto":
                break
        if winner == "head":
            return ("head", None), f"The head alone is best: {why}. {job.head_text}."
        logits = {"choose": _logits(network, job, "choose")}
        logits["test"] = _logits(network, job, "test") if "test" in job.parts else None
    with job.timed("saving"):
        for layer in network.layers:
            layer.trainable = True  # for whoever trains it further
        runs.save_model(network, job.folder / runs.MODEL)
    gain = float(best[1].mean())
    return (winner, logits), f"Trained down to {winner}: {gain:.2%} of the photos for choosing are right. {why}."


def _stage(job, network, found, number, plan, splits, store, bar, best):
    """Train one stage and judge it; its record, or None if the time did not suffice."""
    moving = {v.path: v for v in network.weights}
    kept = {path: value_of(v) for path, v in moving.items() if path.split("/")[0] in _layers(found, number)}
    done = train_stage(
        network,
        found[: number + 1],
        number,
        plan,
        splits,
        job.base.input_shape,
        job.base.preprocessing,
        store,
        bar,
        job.interrupted,
    )
    if done is None:
        _assign(moving, kept)
        return None
    enforce(done["audit"], found[number].name)
    losses, right = _losses(_logits(network, job, "choose"), job.parts["choose"].labels)
    difference = best[0] - losses
    gain, n = difference.mean(), len(difference)
    sure = SURE * difference.std(ddof=1) / np.sqrt(n) if n >= FEWEST else np.inf
    gains = gain > sure and right.sum() >= best[1].sum()
    trainable = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    words = "kept" if gains else "not kept"
    text = (
        f"{found[number].name} {words}: log loss {best[0].mean():.4f} to {losses.mean():.4f}, accuracy "
        f"{best[1].mean():.2%} to {right.mean():.2%} on {len(right):,} photos for choosing"
    )
    if not gains and gain > 0:
        chance = f"within two standard errors ({sure:.4f})" if n >= FEWEST else f"fewer than {FEWEST} can't tell"
        text += f"; {chance}" if gain <= sure else "; fewer are right"
    job.talk(text + ".")
    record = {
        "kept": bool(gains),
        "losses": losses.tolist(),
        "right": right.tolist(),
        "rows": done["rows"],
        "phase": {
            "name": found[number].name,
            "seconds": done["seconds"],
            "trainable": [HEAD, *(n for s in found[: number + 1] for n in s.layers)],
            "trainable_parameters": trainable,
            "frozen_parameters": int(network.count_params()) - trainable,
            "audit": done["audit"],
            "val_accuracy": float(right.mean()),
            "text": text,
        },
    }
    after = {path: value_of(moving[path]) for path in kept} if gains else None
    if not gains:
        _assign(moving, kept)
    store.finish_stage(record, after)
    return record


def _layers(found, number):
    return {HEAD, *(name for stage in found[: number + 1] for name in stage.layers)}


def _assign(variables, values):
    for path, value in (values or {}).items():
        variables[path].assign(value)


def _losses(logits, labels):
    """(log loss of each photo, whether it is right)."""
    z = logits.astype("float64")
    z = z - z.max(1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels], logits.argmax(1) == labels


def _logits(network, job, part):
    """What the network, as it runs when nobody trains it, makes of a part, (N, classes)."""
    from kzoo.data.batches import batches

    predict, split = predictor(network), job.parts[part]
    data = batches(split, job.base.input_shape, job.base.preprocessing, 32, num_classes=len(job.data.classes))
    return np.concatenate([predict(x) for x, _ in data])
