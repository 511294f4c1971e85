"""What the tests of style transfer share."""

import pytest
from PIL import Image
from support.style import CONTENT, OTHER, STYLE


@pytest.fixture
def files(tmp_path):
    for name, array in (("content.png", CONTENT), ("style.png", STYLE), ("other.png", OTHER)):
        Image.fromarray(array).save(tmp_path / name)
    return tmp_path
