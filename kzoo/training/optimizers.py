"""Keras optimizers for recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras.optimizers import schedules

from kzoo.training.recipes import Recipe


@keras.saving.register_keras_serializable(package="kzoo")
class SGDAsPrinted(keras.optimizers.SGD):
    """SGD with the weight decay inside the momentum, as printed by Krizhevsky et al. 2012, section 5.

    v := momentum * v - decay * rate * w - rate * gradient;  w := w + v.

    Keras' own weight_decay subtracts rate * decay * w without momentum, which decays less.

    Args:
        learning_rate, momentum, nesterov: as in keras.optimizers.SGD.
        decay: of the equation; 0 for none.
        decay_all: decay biases, scales and offsets as well.
        kwargs: of keras.optimizers.SGD.
    """

    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, decay=0.0, decay_all=False, **kwargs):
        super().__init__(learning_rate, momentum, nesterov, **kwargs)
        self.decay, self.decay_all = decay, decay_all

    def apply(self, grads, trainable_variables=None):
        """Add decay * w to the gradients, and update the variables."""
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if self.decay:
            grads = [
                g + self.decay * keras.ops.cast(v, g.dtype) if g is not None and (self.decay_all or decays(v)) else g
                for g, v in zip(grads, variables, strict=True)
            ]
        super().apply(grads, trainable_variables)

    def get_config(self):
        """The arguments of the constructor, for Keras."""
        return {**super().get_config(), "decay": self.decay, "decay_all": self.decay_all}


class Fused:
    """A mixin that computes Adam's update in one TensorFlow kernel.

    The arithmetic is that of Keras, whose implementation needs about a dozen passes over the memory:

    m := b1 m + (1 - b1) g;  v := b2 v + (1 - b2) g^2;  w := w - rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).
    """

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable; on another backend than TensorFlow, as Keras does."""
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            return super().update_step(gradient, variable, learning_rate)
        import tensorflow as tf

        index = self._get_variable_index(variable)

        def tensorflow_variable(v):
            return v.value if isinstance(v, keras.Variable) else v

        weights, m, v = map(tensorflow_variable, (variable, self._momentums[index], self._velocities[index]))

        def number(x):
            return tf.cast(x, weights.dtype)

        step = number(self.iterations + 1)
        tf.raw_ops.ResourceApplyAdam(
            var=weights.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=number(self.beta_1) ** step,
            beta2_power=number(self.beta_2) ** step,
            lr=number(learning_rate),
            beta1=number(self.beta_1),
            beta2=number(self.beta_2),
            epsilon=number(self.epsilon),
            grad=number(gradient),
            use_locking=True,
        )


@keras.saving.register_keras_serializable(package="kzoo")
class Adam(Fused, keras.optimizers.Adam):
    """Keras' Adam with a fused update on TensorFlow."""


@keras.saving.register_keras_serializable(package="kzoo")
class AdamW(Fused, keras.optimizers.AdamW):
    """Keras' AdamW with a fused update on TensorFlow."""


def decays(variable: keras.Variable) -> bool:
    """Whether weight decay usually applies to a variable: to kernels, but not to biases, scales and offsets.

    Reference:
        Bag of Tricks, arXiv:1812.01187, section 3.1.
    """
    return variable.path.rsplit("/", 1)[-1] not in ("bias", "gamma", "beta")


@keras.saving.register_keras_serializable(package="kzoo")
class Steps(schedules.LearningRateSchedule):
    """A rate that grows linearly at first and is then multiplied by a number at some steps.

    Args:
        rate: after the warm-up.
        boundaries: the steps from which on it is multiplied by `gamma` once more.
        gamma: see there.
        warmup: steps that it takes to grow.
        start: the rate of the first step.

    Reference:
        Goyal et al. 2017, arXiv:1706.02677, section 2.2: a constant amount at each iteration.
    """

    def __init__(self, rate: float, boundaries: Sequence[int], gamma: float, warmup: int = 0, start: float = 0.0):
        super().__init__()
        self.rate, self.boundaries, self.gamma = rate, list(boundaries), gamma
        self.warmup, self.start = warmup, start

    def __call__(self, step):
        """The rate of a step."""
        ops = keras.ops
        step = ops.cast(step, "float32")
        drops = sum((ops.cast(step >= b, "float32") for b in self.boundaries), ops.cast(0.0, "float32"))
        growing = self.start + (self.rate - self.start) * step / max(1, self.warmup)
        return ops.where(step < self.warmup, growing, self.rate) * ops.power(self.gamma, drops)

    def get_config(self):
        """The arguments of the constructor, for Keras."""
        return {k: getattr(self, k) for k in ("rate", "boundaries", "gamma", "warmup", "start")}


def rate_schedule(recipe: Recipe, steps: int) -> float | schedules.LearningRateSchedule:
    """The learning rate of a recipe.

    Args:
        recipe: gives the schedule. The rate of "plateau" is set by `plateau_rate` at each epoch.
        steps: batches in one epoch.

    Returns:
        A number, or a Keras schedule over steps.
    """
    if recipe.schedule in ("constant", "plateau"):
        return recipe.rate
    if recipe.schedule == "steps":
        drops = [max(1, round(share * recipe.epochs)) * steps for share in recipe.drops]
        warmup = min([round(recipe.warmup * steps), recipe.epochs * steps // 2, *drops])
        return Steps(recipe.rate, drops, recipe.gamma, warmup, min(recipe.learning_rate, recipe.rate))
    if recipe.schedule == "exponential":
        return schedules.ExponentialDecay(recipe.rate, steps, recipe.gamma, staircase=True)
    if recipe.schedule == "cosine":
        warmup = min(round(recipe.warmup * steps), recipe.epochs * steps // 2)
        rest = recipe.epochs * steps - warmup
        if not warmup:
            return schedules.CosineDecay(recipe.rate, rest)
        return schedules.CosineDecay(0.0, rest, warmup_target=recipe.rate, warmup_steps=warmup)
    raise ValueError(f"unknown schedule {recipe.schedule!r}")


def make_optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """Make the optimizer of a recipe.

    Args:
        recipe: gives the optimizer and its schedule.
        steps: batches in one epoch.
    """
    rate = rate_schedule(recipe, steps)
    if recipe.optimizer == "sgd":
        return SGDAsPrinted(rate, recipe.momentum, recipe.nesterov, recipe.weight_decay, recipe.decay_all)
    if recipe.optimizer == "adam":
        return Adam(rate)
    if recipe.optimizer == "adamw":
        optimizer = AdamW(rate, weight_decay=recipe.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer
    raise ValueError(f"unknown optimizer {recipe.optimizer!r}")


def plateau_rate(
    recipe: Recipe,
    history: Sequence[Mapping[str, Any]],
    metric: str = "accuracy",
    higher_is_better: bool = True,
) -> float:
    """The learning rate of the next epoch for the schedule "plateau".

    The rate is multiplied by gamma whenever the metric has not improved for `patience` epochs. It depends on the
    history alone, so that a resumed run has the same rate.

    Args:
        recipe: gives the initial rate, gamma and patience.
        history: the rows of the finished epochs.
        metric: its name; the validation part's value is used, or the training part's if there is no validation part.
        higher_is_better: whether a higher value of the metric is better.
    """
    rate, best, stale = recipe.rate, float("-inf"), 0
    for row in history:
        value = row.get(f"val_{metric}", row[metric])
        value = value if higher_is_better else -value
        if value > best:
            best, stale = value, 0
        else:
            stale += 1
        if stale == recipe.patience:
            rate, stale = rate * recipe.gamma, 0
    return rate
