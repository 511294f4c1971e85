"""One file per family, each in the order part, block, network. The rows are in `kzoo.catalog`.

An architecture function takes an image tensor (B, H, W, C) and the keywords of its catalog row, and returns logits (B,
num_classes), or features if `num_classes` is None.
"""
