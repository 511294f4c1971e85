"""Names: what is refused where a network takes clips."""

import pytest

import kzoo
from kzoo.catalog import image_spec
from kzoo.errors import KzooError

REFUSAL = (
    "kzoo trains, predicts and exports still images; c3d takes clips of 16 frames: build it with kzoo.build('c3d') and "
    "train it with Keras."
)


@pytest.mark.parametrize(
    "line",
    [
        "train c3d",
        "finetune photos --model c3d",
        "finetune photos --model c3d --weights c3d.npz",
        "scout digits --models c3d",
        "predict c3d picture.png",
        "predict c3d picture.png --weights c3d.npz",
        "export c3d",
        "style a.jpg b.jpg --model c3d",
        "stylenet train a.jpg --images photos --model c3d",
        "weights verify c3d c3d.npz",
    ],
)
def test_commands_for_pictures_refuse_a_network_for_clips_in_a_line(line, kzoo_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.png").write_bytes(b"")
    code, out, err = kzoo_command(*line.split())
    assert (code, out) == (1, "") and err.strip().splitlines()[-1] == f"Error: {REFUSAL}"
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


def test_functions_refuse_it_too(tmp_path):
    for verb in (
        lambda: kzoo.train("c3d", "digits", out=tmp_path / "r"),
        lambda: kzoo.finetune("photos", "c3d"),
        lambda: kzoo.export("c3d"),
        lambda: kzoo.scout("digits", ["c3d"]),
        lambda: image_spec("c3d"),
    ):
        with pytest.raises(KzooError) as refused:
            verb()
        assert str(refused.value) == REFUSAL
    model = kzoo.build("c3d", input_shape=(16, 16, 16, 3), width=1, units=2, num_classes=2)
    with pytest.raises(KzooError, match="reads still images"):
        kzoo.export(model, out=tmp_path / "e", quiet=True)
    assert image_spec("vgg16") is kzoo.spec("vgg16")


def test_what_needs_no_picture_works(kzoo_command):
    code, out, _ = kzoo_command("list", "c3d")
    assert code == 0 and "16x112x112x3" in out
    code, out, _ = kzoo_command("info", "c3d")
    assert code == 0 and "78,409,573 trainable, published 78,409,573" in out
    code, _, err = kzoo_command("info", "c3d", "--input-shape", "112x112x3")
    assert code == 1 and "input_shape must be (frames, height, width, channels), like (16, 112, 112, 3)" in err
