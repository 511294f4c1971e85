"""Looking inside a network: seconds for a picture, kzoo beside captum on the same network, translated to PyTorch.

Saliency, integrated gradients at 64 points, Grad-CAM on the last feature maps, and occlusion by a square of 32 pixels
at 15 x 15 places. Each method runs once to compile and warm up, which is not counted but told as "first". PyTorch runs
eagerly in channels last. kzoo computes occlusion in its inference form, in bfloat16 where the machine is fast in it,
else all is float32. "sum", of absolute values, shows that both compute the same (of occlusion captum gives a map of
pixels, and another sum).
"""

import time

from bench.common import network, translate

HELP = "looking inside: seconds for saliency, integrated gradients, Grad-CAM, occlusion; kzoo and captum"
UNIT, BETTER, BASE = "s", "less", "captum"
POINTS, WINDOW, PLACES, BATCH = 64, 32, 15, 16


def arguments(parser):
    parser.add_argument("--model", nargs="+", default=["resnet50"])
    parser.add_argument("--repeats", type=int, default=2, help="runs of each method; the fastest counts")


def contenders(options):
    return ["kzoo", "captum"]


def environment(name):
    return {"KERAS_BACKEND": "torch" if name == "captum" else "tensorflow"}


def measure(name, options):
    import numpy as np

    picture = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
    methods = (in_kzoo if name == "kzoo" else in_captum)(options.model[0], picture)
    found = {}
    for method, run in methods.items():
        seconds = []
        for _ in range(options.repeats + 1):
            began = time.perf_counter()
            result = run()
            seconds.append(time.perf_counter() - began)
        norm = float(np.abs(np.asarray(result)).sum())
        found[method] = {"value": min(seconds[1:]), "first": f"{seconds[0]:.1f} s", "sum": f"{norm:.4g}"}
    return found


def in_kzoo(name, picture):
    """{method: a function that runs it}."""
    from kzoo.visualizing.attribution import integrated_gradients, saliency
    from kzoo.visualizing.cam import gradcam
    from kzoo.visualizing.network import find_network
    from kzoo.visualizing.occlusion import occlusion

    looked = find_network(network(name))
    return {
        "saliency": lambda: saliency(looked, picture, 3),
        "integrated gradients": lambda: integrated_gradients(looked, picture, 3, steps=POINTS).attributions,
        "Grad-CAM": lambda: gradcam(looked, picture, 3).maps,
        "occlusion": lambda: occlusion(looked, picture, 3, window=WINDOW, fill=0.0).drop,
    }


def in_captum(name, picture):
    """{method: a function that runs it}."""
    import captum.attr
    import torch

    from kzoo.visualizing.cam import default_layer
    from kzoo.visualizing.network import find_network

    graph = network(name)
    place = [layer.name for layer in graph.layers].index(default_layer(find_network(graph)))
    model = translate(graph).to(memory_format=torch.channels_last)
    for module in model.modules():
        if hasattr(module, "inplace"):  # its hooks would see what was overwritten
            module.inplace = False
    x = torch.from_numpy(picture).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    stride = (x.shape[-1] - WINDOW) // (PLACES - 1)
    saliency, integrated = captum.attr.Saliency(model), captum.attr.IntegratedGradients(model)
    gradcam, occlusion = captum.attr.LayerGradCam(model, model.steps[place - 1]), captum.attr.Occlusion(model)

    def occluded():
        with torch.no_grad():
            return occlusion.attribute(
                x,
                target=3,
                strides=(3, stride, stride),
                sliding_window_shapes=(3, WINDOW, WINDOW),
                perturbations_per_eval=BATCH,
            )

    return {
        "saliency": lambda: saliency.attribute(x.clone().requires_grad_(), target=3).amax(1),
        "integrated gradients": lambda: integrated.attribute(
            x, target=3, n_steps=POINTS, internal_batch_size=BATCH, method="gausslegendre"
        ).detach(),
        "Grad-CAM": lambda: gradcam.attribute(x, target=3).detach(),
        "occlusion": occluded,
    }
