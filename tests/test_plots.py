"""Drawings: a chart's points where they belong, the same text each time, nothing that leaves the page."""

import re

import numpy as np

from kzoo.plots import learning_curves, line_chart, png


def polylines(svg):
    """The lines of a chart as arrays (N, 2) of points, by colour variable."""
    found = {}
    for path, colour in re.findall(r'<path d="([^"]*)"[^>]*stroke: var\((--orange|--blue)', svg):
        points = np.array([[float(x) for x in pair] for pair in re.findall(r"[ML] (\S+) (\S+)", path)])
        if len(points) > 1:
            found.setdefault(colour, points)
    return found


def test_lines_are_linear_in_their_values_and_gaps_are_left_out():
    values = [1.0, 0.5, 0.25, 0.75]
    lines = polylines(line_chart({"training": values, "validation": [0.5, None, float("nan"), 1.0]}, from_zero=True))
    x, y = lines["--orange"].T
    np.testing.assert_allclose(np.diff(x), x[1] - x[0], rtol=1e-4)
    np.testing.assert_allclose((y - y[0]) / (y[1] - y[0]), (np.array(values) - 1) / -0.5, atol=1e-4)
    assert len(lines["--blue"]) == 2
    np.testing.assert_allclose(lines["--blue"], [[x[0], y[1]], [x[3], y[0]]], rtol=1e-4)


def test_the_text_is_safe_to_put_into_a_page_and_always_the_same():
    names = ["head", '<script>"$x$', "\u5c64"]

    def drawn():
        return line_chart({"training": [1.0, 0.5, 0.2]}, phases=names)

    svg = drawn()
    assert svg == drawn() and svg.startswith("<svg") and svg.endswith("</svg>")
    assert "<script" not in svg and "&lt;script&gt;" in svg and "$x$" in svg and names[2] in svg
    assert not re.search(r"https?:|url\(|<metadata|clip|<g id", svg)
    assert set(re.findall(r"#[0-9a-f]{6}(?!\))", svg)) <= {"#" + i for i in re.findall(r"xlink:href=\"#(\w+)", svg)}


def test_a_line_of_one_point_and_one_of_none():
    assert "<svg" in line_chart({"training": [0.5], "validation": [None]}, phases=["head"])
    assert "<svg" in line_chart({})


def test_learning_curves_have_the_values_of_the_runs():
    history = {
        "epoch": [1, 2, 3],
        "accuracy": [0.5, 0.6, 0.7],
        "loss": [2.0, float("nan"), 1.0],
        "val_loss": [None, 2.5, 2.0],
        "seconds": [1, 1, 1],
    }
    figure = learning_curves({"a": history})
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 2.0], [3, 1.0]])
    np.testing.assert_array_equal(loss.lines[1].get_xydata(), [[2, 2.5], [3, 2.0]])
    np.testing.assert_array_equal(accuracy.lines[0].get_ydata(), [0.5, 0.6, 0.7])
    two = learning_curves({"a": history, "b": history})
    assert [line.get_label() for line in two.axes[1].lines] == ["a, training", "b, training"]
    assert png(figure).startswith(b"\x89PNG") and png(learning_curves({"a": {}})).startswith(b"\x89PNG")
