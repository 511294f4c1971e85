"""kzoo export from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kzoo.cli import entry

entry(["export", *sys.argv[1:]])
