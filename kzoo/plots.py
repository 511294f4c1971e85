"""Plots: arrays in, the bytes of a PNG file or the text of an SVG out. Matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_NAMED_CLASSES = 50  # a larger confusion matrix is drawn without class names
MAX_COUNTED_CLASSES = 20  # a larger one is drawn without counts in its cells


def confusion_matrix(confusion: np.ndarray, classes: tuple[str, ...], title: str) -> bytes:
    """Draw a confusion matrix, with each row as shares of its true class, so that rare classes are visible.

    Args:
        confusion: counts (C, C), true classes in rows.
        classes: C names.
        title: above the matrix.

    Returns:
        The bytes of a PNG file.
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
    if n <= MAX_NAMED_CLASSES:
        names = [printable(c)[:20].replace("$", r"\$") for c in classes]
        axes.set_xticks(range(n), names, rotation=90)
        axes.set_yticks(range(n), names)
    if n <= MAX_COUNTED_CLASSES:
        for i, j in np.ndindex(n, n):
            if confusion[i, j]:
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, f"{confusion[i, j]}", ha="center", va="center", color=colour, fontsize=7)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


# Each colour of a line chart is a CSS variable of the page, so that it follows a dark scheme, with this as its default.
INK, SOFT, GRID = "#1b1f24", "#5c6670", "#d9dee3"
LINES = ("#c2571a", "#1f6fb2")
CSS_VARIABLES = {INK: "--ink", SOFT: "--soft", GRID: "--line", LINES[0]: "--orange", LINES[1]: "--blue"}
MAX_MARKED = 40  # points up to which each one is marked


def line_chart(
    lines: Mapping[str, Sequence[float | None]],
    *,
    phases: Sequence[str | None] = (),
    from_zero: bool = False,
    size: tuple[int, int] = (520, 220),
) -> str:
    """Draw one or two lines over epochs as SVG to put into an HTML page.

    Labels stay text, in the page's own font. Equal arguments give equal SVG: there are no dates and no random names.

    Args:
        lines: {name: values}, a value for each epoch; None and NaN leave a point out. The first line is orange, the
            second blue; the caller writes the legend.
        phases: a name for each epoch. Where it changes there are a dashed line and the new name.
        from_zero: whether the y axis begins at 0.
        size: (width, height) in pixels of the page; the page may scale it.

    Returns:
        An `<svg>` element without namespace declarations and without references to anything outside of it.

    Example:
        >>> svg = line_chart({"training": [1.0, 0.5], "validation": [1.1, None]}, phases=["head", "7x7"])
        >>> svg.startswith("<svg"), "7x7" in svg, "http" in svg
        (True, True, False)
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    options: Any = {
        "svg.hashsalt": "kzoo",
        "svg.fonttype": "none",
        "font.size": 11,
        "axes.unicode_minus": False,
    }
    text = io.StringIO()
    with rc_context(options), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about letters that matplotlib's font lacks
        figure = Figure((size[0] / 72, size[1] / 72), layout="constrained", frameon=False)  # SVG has 72 dots per inch
        axes = figure.add_subplot(frameon=False)
        axes.grid(axis="y", color=GRID, clip_on=False)
        axes.tick_params(length=0, pad=8, labelcolor=SOFT)
        for values, colour in zip(lines.values(), LINES, strict=False):
            points = [(i + 1, v) for i, v in enumerate(values) if v is not None and np.isfinite(v)]
            marker = "o" if len(points) <= MAX_MARKED else None
            x, y = zip(*points, strict=True) if points else ((), ())
            axes.plot(x, y, color=colour, linewidth=2, marker=marker, markersize=5, clip_on=False, zorder=3)
        last = max([2, *map(len, lines.values())])
        axes.set_xlim(1, last)
        axes.xaxis.set_major_locator(MaxNLocator(10, steps=(1, 2, 5, 10), integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if from_zero:
            axes.set_ylim(bottom=0)
        for i, name in enumerate(phases):
            if i and name == phases[i - 1]:
                continue
            axes.axvline(i + 1, color=SOFT, linewidth=1, linestyle=(0, (3, 3)), clip_on=False)
            above = axes.get_xaxis_transform()
            axes.text(i + 1, 1.03, str(name or "")[:24], transform=above, color=INK, parse_math=False)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_svg(text, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # HTML needs no namespaces; two charts in one page must not share ids; the page's font is to be used.
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"|(?<=<g) id="[^"]*"|font-family: [^;"]*;? ?', "", svg)
    return re.sub("|".join(CSS_VARIABLES), lambda m: f"var({CSS_VARIABLES[m[0]]}, {m[0]})", svg)


def figure_of(
    panels: Sequence[tuple[str, str, str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]],
    *,
    markers: bool = True,
) -> Figure:
    """Draw panels of curves side by side.

    Args:
        panels: (title, label of the x axis, label of the y axis, {name of a curve: (x, y)}) of each.
        markers: whether each point of a curve with at most 40 is marked.

    Returns:
        A matplotlib Figure, which a notebook shows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure((5.6 * len(panels), 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, x_label, y_label, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        for name, (x, y) in lines.items():
            marker = "o" if markers and len(x) <= MAX_MARKED else None
            axes.plot(x, y, linewidth=2, marker=marker, markersize=4, label=name)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        if all(float(v).is_integer() for x, _ in lines.values() for v in x):
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        axes.grid(color=GRID)
        axes.spines[["top", "right"]].set_visible(False)
        if lines:
            axes.legend(frameon=False)
    return figure


def curves(
    panels: Sequence[tuple[str, str, str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]],
    *,
    markers: bool = True,
) -> bytes:
    """Draw panels of curves side by side; arguments as of `figure_of`.

    Returns:
        The bytes of a PNG file.
    """
    return png(figure_of(panels, markers=markers))


def png(figure: Figure) -> bytes:
    """The bytes of a PNG file of a figure."""
    buffer = io.BytesIO()
    figure.canvas.print_png(buffer)  # type: ignore[attr-defined]
    return buffer.getvalue()


def learning_curves(histories: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Figure:
    """Draw the loss and the first metric of runs by epoch, training and validation.

    Args:
        histories: {name of a run: {"loss": values by epoch, "val_loss": ..., a metric: ..., "val_" + metric: ...}};
            None or NaN where a value is missing.

    Returns:
        A matplotlib Figure of one or two panels; the names stand in the legend if there are several runs.
    """
    skip = {"epoch", "phase", "loss", "learning_rate", "seconds"}
    metrics = dict.fromkeys(
        key for history in histories.values() for key in history if key not in skip and not key.startswith("val_")
    )
    panels: list[tuple[str, str, str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]] = []
    for metric in ("loss", *list(metrics)[:1]):
        lines: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
        for run, history in histories.items():
            for part, key in (("training", metric), ("validation", f"val_{metric}")):
                points = [(i, y) for i, y in enumerate(history.get(key, ()), 1) if y is not None and np.isfinite(y)]
                if points:
                    name = part if len(histories) == 1 else f"{printable(run)}, {part}"
                    lines[name] = ([i for i, _ in points], [y for _, y in points])
        if lines:
            title = metric.replace("_", " ").capitalize()
            panels.append((title, "epoch", title.lower(), lines))
    return figure_of(panels or [("No epoch was finished", "epoch", "loss", {})])
