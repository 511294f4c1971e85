"""The options of style: checked before any work, and the same when they are read again from JSON."""

import json
import re
from dataclasses import asdict, replace

import pytest

import kzoo
from kzoo.errors import KzooError
from kzoo.style.settings import Settings, StylenetOptions


def test_sizes_grow_and_json_keeps_settings():
    settings = Settings(size=512)
    assert settings.sides((768, 1024)) == (128, 181, 256, 362, 512)
    assert replace(settings, coarsest=0).sides((768, 1024)) == (512,)
    assert Settings(size=100).sides((50, 1000)) == (100,)
    assert Settings.of(json.loads(json.dumps(asdict(settings)))) == settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 63}, "size must be a multiple of 4 and at least 64, got 63"),
        ({"size": 66}, "size must be a multiple of 4"),
        ({"size": "256"}, "size must be a whole number of at least 1, got '256'"),
        ({"style_size": 63}, "style_size must be a whole number of at least 64, got 63"),
        ({"style_size": 100.0}, "style_size must be"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be"),
        ({"width": 0}, "width must be"),
        ({"steps": None}, "steps must be"),
        ({"blocks": -1}, "blocks must be"),
        ({"blocks": 2.0}, "blocks must be a whole number of at least 0, got 2.0"),
        ({"style_weight": -1.0}, "style_weight must be a number, 0 or above"),
        ({"content_weight": float("nan")}, "content_weight must be"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0"),
        ({"seed": -1}, "seed must be"),
        ({"style_layers": "block1_conv1"}, "style_layers must be names of layers"),
        ({"content_layers": ()}, "content_layers must be names of layers"),
        ({"model": "vgg99"}, "Unknown model 'vgg99'"),
        ({"precision": "int8"}, "Unknown precision 'int8'"),
    ],
)
def test_stylenet_options_are_checked_before_any_work(options, message):
    with pytest.raises(KzooError, match=re.escape(message)):
        kzoo.train_stylenet("no/such/style.png", "no/such/folder", **options)


def test_stylenet_options_survive_json():
    options = StylenetOptions(style_layers=["block1_conv1"])
    assert StylenetOptions(**json.loads(json.dumps(asdict(options)))) == options


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"weights": "https://example.com/w.h5"}, "names the weights 'https://example.com/w.h5'"),
        ({"weights": "/etc/passwd"}, "give them by --weights"),
        ({"weights": "../w.npz\x1b[31m"}, r"'../w.npz\\x1b\[31m'"),
        ({"weights": "hf:someone/something"}, "not opened because a picture says so"),
        ({"evaluations": 10**30}, r"evaluations 1\d+; at most 20,000"),
        ({"evaluations": [15_000, 15_000]}, "evaluations 30000"),
        ({"size": 10**6}, "size 1000000"),
        ({"size": 4096, "style_scale": 100.0}, "size times style_scale"),
        ({"masks": [["a.png", "-"]] * 65}, "number of masks"),
        ({"seed": 2**40}, "seed"),
        ({"size": float("inf")}, "size must be"),
        ({"model": "https://example.com"}, "Unknown model"),
    ],
)
def test_a_picture_names_no_file_and_no_address_and_stays_within_bounds(record, said):
    with pytest.raises(KzooError, match=said) as caught:
        Settings.recorded(record)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_what_the_user_gives_counts_in_place_of_the_record():
    for tag in ("auto", "imagenet", "cifar10", "random"):
        assert Settings.recorded({"weights": tag}).weights == tag
    assert Settings.recorded({"weights": "mine.npz"}, {"weights"}).weights == "mine.npz"
    assert Settings.recorded({"evaluations": 30_000}, {"evaluations"}).evaluations == 30_000
