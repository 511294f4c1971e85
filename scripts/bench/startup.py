"""Seconds and peak memory of whole commands; after the first round their files are in the disk cache.

Compare commands that need no Keras with `import click`, and the others with `import keras`. --kzoo measures others:

    python scripts/benchmark.py startup --rounds 1 --kzoo "export vgg16 --out vgg --force" "predict vgg photo.jpg"
"""

import shlex
import subprocess
import sys
import time

HELP = "seconds of whole commands: kzoo list, --help, info, ..."
UNIT, BETTER, BASE = "s", "less", "import click"

RUN = "from kzoo.cli import main; main({})"
COMMANDS = {
    "import click": "import click",
    "kzoo --help": RUN.format(["--help"]),
    "kzoo list": RUN.format(["list"]),
    "kzoo train --help": RUN.format(["train", "--help"]),
    "kzoo style --help": RUN.format(["style", "--help"]),
    "import kzoo": "import kzoo; kzoo.list_models()",
    "import keras": "import keras",
    "kzoo info lenet5": RUN.format(["info", "lenet5"]),
    "import keras.applications": "import keras; keras.applications.MobileNetV2(weights=None)",
    "kzoo info mobilenet_v2": RUN.format(["info", "mobilenet_v2"]),
}


def arguments(parser):
    parser.add_argument("--kzoo", nargs="+", metavar="ARGUMENTS", help="these commands, each as one argument")


def contenders(options):
    return options.kzoo or list(COMMANDS)


def measure(name, options):
    code = RUN.format(shlex.split(name)) if options.kzoo else COMMANDS[name]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip().rpartition("\n")[2])
    return {"value": time.perf_counter() - began}
