"""One file per family, each in the order part, block, network. The rows are in `kzoo.catalog`.

An architecture function takes an image tensor (B, H, W, C) and the keywords of its catalog row, and returns logits (B,
num_classes), for segmentation (B, H, W, num_classes), or features if `num_classes` is None.

Importing the package imports all families, so that Keras knows their layers when it reads a model.
"""

from kzoo.models import (  # noqa: F401
    alexnet,
    allcnn,
    c3d,
    deepface,
    inception,
    inception_resnet,
    inception_v3,
    inception_v4,
    lenet,
    mnist,
    mobilenet,
    nasnet,
    nin,
    resnet,
    squeezenet,
    stylenet,
    unet,
    vgg,
    wide_resnet,
    zfnet,
)
