"""Backbones: which weights are found locally."""

import kzoo
from kzoo.finetuning import backbone


def test_a_broken_download_is_not_at_hand(world, tmp_path, monkeypatch):
    """Keras may leave half of one under the final name."""
    from kzoo.files import digest

    good = kzoo.Weights("a", str(world / "weights.npz"), f"sha256:{digest(world / 'weights.npz')}")
    (tmp_path / "half.npz").write_bytes((world / "weights.npz").read_bytes()[:999])
    row = kzoo.spec("resnet20")
    monkeypatch.setattr(
        backbone,
        "found_locally",
        lambda model=None: [(row, good, tmp_path / "half.npz"), (row, good, world / "weights.npz")],
    )
    assert backbone.backbone("resnet20", precision="float32").path == world / "weights.npz"
