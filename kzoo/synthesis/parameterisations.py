"""How numbers become a picture: pixels, a Fourier spectrum with decorrelated colours, a ball around grey.

A parameterisation is called with parameters and gives (picture, pullback); the pullback turns the gradient of a loss
for the picture into that for the parameters. NumPy only, so it is the same on every backend.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

GREY = 127.5  # the middle of 0..255

# The square root of the covariance of colours in ImageNet, as lucid has it; rows are R, G, B.
COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])

Pullback = Callable[[np.ndarray], np.ndarray]


def decorrelation() -> np.ndarray:
    """The matrix (3, 3) from decorrelated colours to R, G, B: `COLOURS` over its largest column norm."""
    return COLOURS / np.linalg.norm(COLOURS, axis=0).max()


def spectrum_scale(height: int, width: int, decay: float = 1.0) -> np.ndarray:
    """By how much each frequency of a picture is scaled, so that a step moves all of them as natural images need it.

    Args:
        height, width: of the picture in pixels.
        decay: the power of the frequency that it falls with.

    Returns:
        (height, width // 2 + 1), 1 / max(f, 1 / max(w, h)) ** decay * sqrt(w h) / 4, for f in cycles per pixel.

    Reference:
        Olah, Mordvintsev and Schubert 2017 (Feature Visualization, distill.pub) and their code, lucid.
    """
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    return np.sqrt(width * height) / np.maximum(f, 1 / max(width, height)) ** decay / 4


class Fourier:
    """A picture as its spectrum: inverse FFT, colours from decorrelated ones, a sigmoid, 0..255.

    Args:
        shape: (height, width, channels) of the picture. Colours are decorrelated where there are three.
        decay: see `spectrum_scale`.

    Reference:
        Olah et al. 2017, as lucid computes it; parameters are real and imaginary parts, standard deviation 0.01.
    """

    RATE = 0.05  # Adam's, lucid's own
    DEVIATION = 0.01

    def __init__(self, shape: tuple[int, int, int], decay: float = 1.0):
        self.shape = shape
        height, width, channels = shape
        self.scale = spectrum_scale(height, width, decay)[..., None]
        self.colours = decorrelation() if channels == 3 else np.eye(channels)

    def start(self, seed: int = 0) -> np.ndarray:
        """Random parameters, (2, height, width // 2 + 1, channels) float32."""
        height, width, channels = self.shape
        size = (2, height, width // 2 + 1, channels)
        return np.random.default_rng(seed).normal(0, self.DEVIATION, size).astype("float32")

    def __call__(self, parameters: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """((1, H, W, C) float32 in 0..255, pullback) of parameters."""
        height, width, _ = self.shape
        spectrum = (parameters[0] + 1j * parameters[1].astype("float64")) * self.scale
        plane = np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))
        share = _sigmoid(plane @ self.colours.T)

        def pullback(gradient):
            g = (255 * gradient[0].astype("float64") * share * (1 - share)) @ self.colours
            # The adjoint of irfft2: all columns but the first, and for even widths the last, stand for two frequencies.
            back = np.fft.rfft2(g, axes=(0, 1)) * (2 * self.scale / (height * width))
            back[:, 0] /= 2
            if width % 2 == 0:
                back[:, -1] /= 2
            return np.stack([back.real, back.imag]).astype("float32")

        return (255 * share[None]).astype("float32"), pullback


class Pixels:
    """A picture as its pixels, 0..255 by a sigmoid.

    Args:
        shape: (height, width, channels).
    """

    RATE = 0.05

    def __init__(self, shape: tuple[int, int, int]):
        self.shape = shape

    def start(self, seed: int = 0) -> np.ndarray:
        """Random parameters, (height, width, channels) float32."""
        return np.random.default_rng(seed).normal(0, 0.01, self.shape).astype("float32")

    def __call__(self, parameters: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """((1, H, W, C) float32 in 0..255, pullback) of parameters."""
        share = _sigmoid(parameters.astype("float64"))

        def pullback(gradient):
            return (255 * gradient[0] * share * (1 - share)).astype("float32")

        return (255 * share[None]).astype("float32"), pullback


class Ball:
    """A picture on the sphere around grey: 127.5 + radius * p / |p|. What a linear unit likes most there is w / |w|.

    Args:
        shape: (height, width, channels).
        radius: the Euclidean norm of the picture minus grey, in grey levels; None: 32 for each number (root mean
            square), which leaves few pixels outside 0..255.
    """

    RATE = 0.05

    def __init__(self, shape: tuple[int, int, int], radius: float | None = None):
        self.shape = shape
        self.radius = 32 * np.sqrt(np.prod(shape)) if radius is None else radius

    def start(self, seed: int = 0) -> np.ndarray:
        """Random parameters, (height, width, channels) float32."""
        return np.random.default_rng(seed).normal(0, 1, self.shape).astype("float32")

    def __call__(self, parameters: np.ndarray) -> tuple[np.ndarray, Pullback]:
        """((1, H, W, C) float32, pullback) of parameters, which must not all be 0."""
        norm = np.linalg.norm(parameters.astype("float64"))
        unit = parameters / norm

        def pullback(gradient):
            along = np.vdot(unit, gradient[0])
            return (self.radius / norm * (gradient[0] - along * unit)).astype("float32")

        return (GREY + self.radius * unit[None]).astype("float32"), pullback


PARAMETERISATIONS = {"fourier": Fourier, "pixels": Pixels, "ball": Ball}


def _sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))  # 1 / (1 + exp(-x)) without overflow
