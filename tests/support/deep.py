"""Long tests stand behind KZOO_DEEP=1, and each says when it was last run: `@pytest.mark.deep("2026-11-26")`.

Without KZOO_DEEP=1 they are deselected. Run them before a release and after a change to what they test, and write the
date into the mark: `KZOO_DEEP=1 pytest -m deep`.
"""

import os

DEEP = bool(os.environ.get("KZOO_DEEP"))


def deselect(config, items):
    """Takes the deep tests out, unless KZOO_DEEP is set; a mark without its date is an error."""
    kept, left_out = [], []
    for item in items:
        mark = item.get_closest_marker("deep")
        if mark and len(mark.args) != 1:
            raise ValueError(f"{item.nodeid}: @pytest.mark.deep takes the date when the test was last run")
        (left_out if mark and not DEEP else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
