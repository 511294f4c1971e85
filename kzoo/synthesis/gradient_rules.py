"""Gradients with another rule at each ReLU: guided backpropagation, the deconvnet, lucid's redirected ReLUs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops

from kzoo.errors import KzooError, unknown
from kzoo.graph.flat import flat_copy
from kzoo.synthesis.losses import Tensor

RULES = ("plain", "guided", "deconvnet", "redirected")

FUNCTIONS = tuple(getattr(keras.activations, n) for n in ("relu", "relu6", "leaky_relu"))
OPERATIONS = ("ReLU", "Relu", "Relu6", "LeakyRelu")  # of keras.ops and keras.activations, called on a model's tensors


def with_rule(model: keras.Model, rule: str) -> tuple[keras.Model, tuple[str, ...]]:
    """Copy a model so that each ReLU passes gradients by another rule; its outputs stay the same.

    With g the gradient of the activation's output and f its function, the gradient of its input is

    - "plain": f'(x) g, the derivative.
    - "guided": f'(x) max(g, 0) (Springenberg et al. 2014).
    - "deconvnet": max(g, 0), wherever the unit stands (Zeiler and Fergus 2013).
    - "redirected": f'(x) g, but for an image whose gradient it stops everywhere: then g where a step against the
      gradient moves x towards the range in which f rises. It is meant for a loss that is minimised (lucid).

    ReLU, ReLU6 and ReLU layers with other bounds, LeakyReLU and PReLU count as ReLUs, as a layer, as an operation, as
    keras.layers.Activation, and as the `activation` of any layer. Under "deconvnet" slope and bound do not count.
    Other activations (swish, sigmoid, tanh) keep their derivative.

    Args:
        model: A functional model, flat or nested.
        rule: One of RULES.

    Returns:
        (a flat float32 copy with weights of its own, the names of the layers whose rule was replaced). The model itself
        stays as it is.

    Raises:
        UnknownName: There is no such rule.
        KzooError: The model has no ReLU, or one inside a layer that can't be looked into.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), layers.Dense(1, activation="relu", name="unit")])
        >>> with_rule(model, "guided")[1]
        ('unit',)

    Reference:
        Springenberg et al. 2014, arXiv:1412.6806, section 3.4; Zeiler and Fergus 2013, arXiv:1311.2901, section 2.1.
    """
    if rule not in RULES:
        raise unknown("gradient rule", rule, RULES, f"It is one of {', '.join(RULES)}.")
    replaced, hidden = [], []

    def change(original, copied):
        if rule == "plain":
            return copied
        if is_relu(copied):
            replaced.append(copied.name)
            return RuledActivation(copied, rule)
        activation = getattr(copied, "activation", None)
        if is_relu(activation):
            replaced.append(copied.name)
            copied.activation = ruled(activation, rule)
        elif isinstance(original, layers.Layer):
            inside = (each for each in original._flatten_layers(include_self=False) if each is not activation)
            hidden.extend(copied.name for each in inside if is_relu(each) or is_relu(getattr(each, "activation", None)))
        return copied

    copied = flat_copy(model, change)
    if hidden:
        raise KzooError(
            f"{hidden[0]} of {model.name} is a layer with a ReLU inside, which the rule {rule} can't reach: build the "
            "model from functional parts."
        )
    if rule != "plain" and not replaced:
        raise KzooError(f"{model.name} has no ReLU, so the rule {rule} would change nothing: use the plain gradient.")
    return copied, tuple(replaced)


def is_relu(activation: Any) -> bool:
    """Whether a layer, an operation or an activation function is a ReLU in one of its forms."""
    if isinstance(activation, layers.Activation):
        return is_relu(activation.activation)
    if isinstance(activation, (layers.ReLU, layers.LeakyReLU, layers.PReLU)):
        return True
    if isinstance(activation, keras.Operation) and not isinstance(activation, layers.Layer):
        return type(activation).__name__ in OPERATIONS and type(activation).__module__.startswith("keras.")
    return any(activation is f for f in FUNCTIONS)


def bound_of(activation: Any) -> float | None:
    """Where a ReLU stops rising: 6 for ReLU6; None for nowhere."""
    if isinstance(activation, layers.Activation):
        activation = activation.activation
    if activation is keras.activations.relu6 or type(activation).__name__ == "Relu6":
        return 6.0
    return getattr(activation, "max_value", None)


def leaks(activation: Any) -> bool:
    """Whether a ReLU passes a part of every gradient."""
    if isinstance(activation, layers.Activation):
        activation = activation.activation
    leaky = isinstance(activation, (layers.LeakyReLU, layers.PReLU)) or activation is keras.activations.leaky_relu
    return leaky or type(activation).__name__ == "LeakyRelu" or bool(getattr(activation, "negative_slope", 0.0))


class RuledActivation(layers.Layer):
    """An activation layer whose gradient follows a rule.

    Args:
        activation: The layer or operation; its weights are this layer's.
        rule: One of RULES.
    """

    def __init__(self, activation: Any, rule: str) -> None:
        super().__init__(name=activation.name, dtype="float32")
        self.inner, self.function = activation, ruled(activation, rule)

    def call(self, x):
        return self.function(x)

    def compute_output_shape(self, input_shape):
        return input_shape


def ruled(activation: Any, rule: str) -> Callable[[Tensor], Tensor]:
    """A ReLU as a function with the same values, whose gradient follows a rule of `with_rule`."""
    if rule == "redirected" and leaks(activation):
        return activation  # nothing is ever stopped
    threshold, bound = getattr(activation, "threshold", 0.0), bound_of(activation)

    # y = f(x) is differentiated as always; what reaches y and what goes to x directly is the rule's to say.
    @ops.custom_gradient
    def shared(x, y):
        def gradient(*args, upstream=None):
            g = args[0] if upstream is None else upstream
            zero = ops.zeros_like(g)
            positive = ops.maximum(g, zero)
            if rule == "guided":
                return zero, positive
            if rule == "deconvnet":
                return positive, zero
            low, high = x <= threshold, ops.zeros_like(x, dtype="bool") if bound is None else x >= bound
            through = ops.where(ops.logical_or(low, high), zero, g)
            axes = tuple(range(1, len(g.shape)))
            stopped = ops.max(ops.abs(through), axis=axes, keepdims=True) == 0 if axes else through == 0
            away = ops.logical_or(ops.logical_and(low, g > 0), ops.logical_and(high, g < 0))
            return ops.where(ops.logical_and(stopped, ops.logical_not(away)), g, zero), ops.where(stopped, zero, g)

        return y + 0, gradient

    return lambda x: shared(x, activation(x))
