"""Keras optimisers for recipes."""

import keras
from keras.optimizers import schedules


@keras.saving.register_keras_serializable(package="kzoo")
class SGDAsPrinted(keras.optimizers.SGD):
    """SGD with the weight decay inside the momentum, as Krizhevsky et al. 2012, section 5, print it:

    v := momentum * v - decay * rate * w - rate * gradient;  w := w + v.

    Keras' own weight_decay subtracts rate * decay * w beside the momentum, which decays less.
    """

    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, decay=0.0, decay_all=False, **kwargs):
        super().__init__(learning_rate, momentum, nesterov, **kwargs)
        self.decay, self.decay_all = decay, decay_all

    def apply(self, grads, trainable_variables=None):
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if self.decay:
            grads = [
                g + self.decay * keras.ops.cast(v, g.dtype) if g is not None and (self.decay_all or decays(v)) else g
                for g, v in zip(grads, variables, strict=True)
            ]
        super().apply(grads, trainable_variables)

    def get_config(self):
        return {**super().get_config(), "decay": self.decay, "decay_all": self.decay_all}


class Fused:
    """Adam's update as one kernel on TensorFlow, the same arithmetic: Keras' own makes a dozen passes over the memory.

    m := b1 m + (1 - b1) g;  v := b2 v + (1 - b2) g^2;  w := w - rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).
    """

    def update_step(self, gradient, variable, learning_rate):
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            return super().update_step(gradient, variable, learning_rate)
        import tensorflow as tf

        index = self._get_variable_index(variable)

        def own(v):
            return v.value if isinstance(v, keras.Variable) else v

        weights, m, v = own(variable), own(self._momentums[index]), own(self._velocities[index])

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
    """Keras' Adam, fused where TensorFlow computes."""


@keras.saving.register_keras_serializable(package="kzoo")
class AdamW(Fused, keras.optimizers.AdamW):
    """Keras' AdamW, fused where TensorFlow computes."""


def decays(variable):
    """Whether modern practice decays it: kernels, but no biases, scales or offsets (arXiv:1812.01187, section 3.1)."""
    return variable.path.rsplit("/", 1)[-1] not in ("bias", "gamma", "beta")


def rate_schedule(plan, steps):
    """The rate by step: a number or a Keras schedule. steps: in one epoch."""
    if plan.schedule in ("constant", "plateau"):
        return plan.learning_rate
    if plan.schedule == "exponential":
        return schedules.ExponentialDecay(plan.learning_rate, steps, plan.gamma, staircase=True)
    if plan.schedule == "cosine":
        warmup = min(round(plan.warmup * steps), plan.epochs * steps // 2)
        rest = plan.epochs * steps - warmup
        if not warmup:
            return schedules.CosineDecay(plan.learning_rate, rest)
        return schedules.CosineDecay(0.0, rest, warmup_target=plan.learning_rate, warmup_steps=warmup)
    raise ValueError(f"unknown schedule {plan.schedule!r}")


def make_optimizer(plan, steps):
    """The optimiser of a recipe. steps: in one epoch."""
    rate = rate_schedule(plan, steps)
    if plan.optimizer == "sgd":
        return SGDAsPrinted(rate, plan.momentum, plan.nesterov, plan.weight_decay, plan.decay_all)
    if plan.optimizer == "adam":
        return Adam(rate)
    if plan.optimizer == "adamw":
        optimizer = AdamW(rate, weight_decay=plan.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        return optimizer
    raise ValueError(f"unknown optimizer {plan.optimizer!r}")


def plateau_rate(plan, history, metric="accuracy", higher_is_better=True):
    """The rate for the next epoch: times gamma whenever `patience` epochs brought no better validation accuracy.

    A function of the history alone, so that a resumed run has the same rate.
    """
    rate, best, stale = plan.learning_rate, float("-inf"), 0
    for row in history:
        value = row.get(f"val_{metric}", row[metric])
        value = value if higher_is_better else -value
        if value > best:
            best, stale = value, 0
        else:
            stale += 1
        if stale == plan.patience:
            rate, stale = rate * plan.gamma, 0
    return rate
