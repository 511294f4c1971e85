"""Drawings of numbers as PNG: plain arrays in, a file's bytes out. Matplotlib is imported when one is drawn."""

from __future__ import annotations

import io

import numpy as np

NAMED, COUNTED = 50, 20  # classes up to which a confusion matrix has names, and counts, in it


def confusion_matrix(confusion: np.ndarray, classes: tuple[str, ...], title: str) -> bytes:
    """Draw a confusion matrix as shares of each true class, so that rare classes show.

    Args:
        confusion: counts (C, C), true classes in rows.
        classes: C names.
        title: above the matrix.

    Returns:
        A PNG file's bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(classes)
    size = min(max(4.0, 0.45 * n + 2), 24)
    figure = Figure((size, size), layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if n <= NAMED:
        names = [c[:20].replace("$", r"\$") for c in classes]
        axes.set_xticks(range(n), names, rotation=90)
        axes.set_yticks(range(n), names)
    if n <= COUNTED:
        for i, j in np.ndindex(n, n):
            if confusion[i, j]:
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, f"{confusion[i, j]}", ha="center", va="center", color=colour, fontsize=7)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
