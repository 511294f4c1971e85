"""What the tests of fine-tuning share."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def mistakes_have_no_maps():
    """Each run would load its network again for them: a third of a second. test_maps.py and the demo draw them."""
    from kzoo.finetuning import pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "maps_of_mistakes", lambda folder, images, built: None)
        yield
