"""Commands in processes of their own: started, waited for, killed."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def command(*args):
    return [sys.executable, "-c", "from kzoo.cli import main; main()", *map(str, args)]


def started(*args, **options):
    return subprocess.Popen(
        command(*args), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def wait_for(check, process, seconds=120):
    end = time.monotonic() + seconds
    while not check():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
