"""Style transfer on one objective: evaluations a second, and the loss by evaluations and by seconds.

The optimisation starts from the content, at one size. The network is VGG-19 up to block3_conv1 (--weights: any file
with these layers), the content layer block3_conv1, the style layers block1..3_conv1; average pooling, replicate
padding, terms relative to their size at zero features. The plain PyTorch loop is torch.optim.LBFGS (strong Wolfe) or
Adam on the same objective, eager, channels last; its loss must agree with kzoo's at the start. All losses are computed
in float32 by kzoo from the picture at that time. Seconds include evaluations and the work of the optimiser, but not
compilation.
"""

import time
from contextlib import suppress

HELP = "style transfer: evaluations/s, loss against evaluations and seconds; kzoo and a plain PyTorch loop"
UNIT, BETTER, BASE = "evaluations/s", "more", "torch lbfgs float32"
RECORDED_EVALUATIONS = (25, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500)
RECORDED_SECONDS = (15, 30, 60, 90, 120, 180)


def arguments(parser):
    from kzoo.files import data_folders

    shared = next((p for p in data_folders() if (p / "style").is_dir()), None)

    def at(name):
        return str(shared / name) if shared else None

    parser.add_argument("--content", default=at("style/tubingen.jpg"))
    parser.add_argument("--style", default=at("style/starry_night.jpg"))
    parser.add_argument("--weights", default=at("weights/vgg19_normalised_conv3_1.npz"))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=240, help="time limit of each contender")


def contenders(options):
    return [
        "kzoo lbfgs bfloat16",
        "kzoo lbfgs float32",
        "kzoo adam bfloat16",
        "kzoo adam float32",
        "torch lbfgs float32",
        "torch adam float32",
    ]


class Done(Exception):
    """Ends an optimisation from inside its objective."""


def measure(name, options):
    import numpy as np

    from kzoo.synthesis import pictures
    from kzoo.synthesis.network import catalog_model, cut_network
    from kzoo.synthesis.objective import CompiledNetwork, StyleObjective

    peer, optimiser, precision = name.split()

    def picture(path):
        return pictures.read_picture(path)

    def fitted(p):
        return pictures.resized(p, pictures.fitted(p.shape, options.size)).astype("float32")[None]

    content, style = fitted(picture(options.content)), fitted(picture(options.style))
    layers = tuple(f"block{i}_conv1" for i in (1, 2, 3))

    def objective(precision):
        source = catalog_model("vgg19", options.weights, precision=precision)
        network = cut_network(source, content_layers=layers[-1:], style_layers=layers)
        return StyleObjective(CompiledNetwork(network), content, [style])

    exact = objective("float32")
    start = exact(content)[0]
    if peer == "torch":
        evaluate = in_torch(exact.compiled.network.model, layers, content, style)
        assert abs(evaluate(content)[0] / start - 1) < 1e-3, (evaluate(content)[0], start)
    else:
        evaluate = exact if precision == "float32" else objective(precision)
        evaluate(content)
    evaluate(content)

    recorded, clock = [], list(RECORDED_SECONDS)  # (evaluations, seconds, picture)
    began, paused = time.perf_counter(), 0.0

    def counted(x):
        nonlocal paused
        result = evaluate(x)
        counted.n += 1
        now = time.perf_counter()
        seconds = now - began - paused
        if result[0] < counted.best[0]:
            counted.best = result[0], np.array(x)  # a copy, because PyTorch changes x in place
        if counted.n in RECORDED_EVALUATIONS or counted.n == options.evaluations or (clock and seconds >= clock[0]):
            while clock and seconds >= clock[0]:
                clock.pop(0)
            recorded.append((counted.n, seconds, np.array(counted.best[1])))
            paused += time.perf_counter() - now
        if counted.n >= options.evaluations or seconds > options.seconds:
            raise Done
        return result

    counted.n, counted.best = 0, (np.inf, content)
    with suppress(Done):
        (torch_loop if peer == "torch" else kzoo_loop)(optimiser, content, counted)
    if not recorded:
        recorded.append((counted.n, time.perf_counter() - began - paused, np.array(counted.best[1])))
    curve = [[n, round(t, 2), exact(x)[0]] for n, t, x in recorded]
    n, seconds, _ = curve[-1]
    gram = float(np.mean(list(exact.distances(recorded[-1][2]).values())))
    gflop = operations(content.shape[1:], layers) / 1e9
    losses = {f"loss@{n}": float(f"{v:.4g}") for n, _, v in curve if n in (50, 100, 200, 500)}
    return {"value": n / seconds, **losses, "gram": float(f"{gram:.2g}"), "gflop": round(gflop, 1), "curve": curve}


def operations(shape, layers):
    """Floating point operations of one evaluation: convolutions and Gram matrices, and their gradients.

    The gradient of a convolution with respect to its input costs the same as the convolution, and that of F F^T with
    respect to F, (S + S^T) F for a slope S, the same N^2 M as the Gram matrix.
    """
    import kzoo
    from kzoo.graph.ledger import without_values

    # Without values: those of the fully connected layers would count as peak memory.
    rows = kzoo.ledger(without_values(lambda: kzoo.build("vgg19", num_classes=None, input_shape=shape))).rows
    last = next(i for i, row in enumerate(rows) if row.name == layers[-1])
    total = 2 * 2 * sum(row.multiply_adds or 0 for row in rows[: last + 1])
    for row in rows:
        if row.name in layers:
            height, width, n = row.output
            total += 2 * 2 * height * width * n * n
    return total


def kzoo_loop(optimiser, content, evaluate):
    from kzoo.synthesis.optimise import LBFGS, ArrayAdam

    steps = {"lbfgs": LBFGS, "adam": ArrayAdam}[optimiser](content.copy())
    while steps.step(evaluate):
        pass


def torch_loop(optimiser, content, evaluate):
    import torch

    x = torch.from_numpy(content.copy()).requires_grad_()
    if optimiser == "lbfgs":
        steps = torch.optim.LBFGS(
            [x], max_iter=10**6, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
        )
    else:
        steps = torch.optim.Adam([x], lr=5.0)

    def closure():
        loss, _, gradient = evaluate(x.detach().numpy())
        x.grad = torch.from_numpy(gradient)
        return torch.tensor(loss)

    while True:
        steps.step(closure)


def in_torch(model, layers, content, style):
    """The objective in PyTorch, with the kernels of a Keras model: x (1, H, W, 3) -> (loss, None, gradient)."""
    import keras
    import numpy as np
    import torch
    from torch.nn import functional as F

    array = keras.ops.convert_to_numpy
    prep = model.get_layer("preprocessing")
    scale, offset = (torch.tensor(np.broadcast_to(np.float32(v), 3).copy()) for v in (prep.scale, prep.offset))
    weights = {}
    for i, n in ((1, 2), (2, 2), (3, 1)):
        for j in range(1, n + 1):
            layer = model.get_layer(f"block{i}_conv{j}")
            kernel = torch.from_numpy(array(layer.kernel).astype("float32").transpose(3, 2, 0, 1).copy())
            bias = torch.from_numpy(array(layer.bias).astype("float32"))
            weights[i, j] = kernel.to(memory_format=torch.channels_last), bias

    def features(x):
        if prep.channel_order == "bgr":
            x = x.flip(-1)
        x, found = (x * scale + offset).permute(0, 3, 1, 2), []
        for i, j in weights:
            if i > 1 and j == 1:
                x = F.avg_pool2d(x, 2)
            x = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), *weights[i, j]))
            if j == 1:
                found.append(x)
        return found

    def gram(f):
        f = f[0].flatten(1)
        return f @ f.T / f.shape[1]

    with torch.no_grad():
        target = features(torch.from_numpy(content))[-1]
        grams = [gram(f) for f in features(torch.from_numpy(style))]

    def evaluate(x):
        x = torch.from_numpy(np.ascontiguousarray(x)).requires_grad_()
        found = features(x)
        loss = (found[-1] - target).square().sum() / target.square().sum()
        for f, a in zip(found, grams, strict=True):
            loss = loss + 100 / len(layers) * (gram(f) - a).square().sum() / a.square().sum()
        loss.backward()
        return float(loss), None, x.grad.numpy()

    return evaluate


def finish(table):
    """Lines on the seconds of each contender until the loss of the plain float32 loop after 200 evaluations."""
    plain = {n: (t, v) for n, t, v in table.get(BASE, {}).get("curve", [])}
    if 200 not in plain:
        return shares(table)
    seconds, goal = plain[200]
    lines = shares(table)
    lines.append(f"Time to the loss of the plain loop after 200 evaluations, {goal:.4g} after {seconds:.0f} s:")
    for name, row in table.items():
        reached = next((t for _, t, v in row["curve"] if v <= goal), None)
        lines.append(f"  {name}: {f'{reached:.0f} s' if reached else 'not reached'}")
    for t in (60, 180):
        at = {n: [v for _, s, v in r["curve"] if s <= t * 1.02] for n, r in table.items()}
        lines.append(f"Loss after {t} s: " + ", ".join(f"{n} {v[-1]:.4g}" for n, v in at.items() if v))
    return lines


def shares(table):
    """Lines on the speed of each contender as a share of the machine's matrix product in its precision."""
    from bench.common import peak

    best, lines = peak(), []
    for name, row in table.items():
        precision = name.split()[-1]
        reached = row["best"] * row["gflop"]
        lines.append(
            f"  {name}: {reached:,.0f} GFLOP/s, {reached / best[precision]:.0%} of the matrix product's "
            f"{best[precision]:,} in {precision}"
        )
    return lines
