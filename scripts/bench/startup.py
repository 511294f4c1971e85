"""Seconds of whole commands; after the first round their files are in the disk cache.

Compare commands that need no Keras with `import click`, and the others with `import keras`.
"""

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
    pass


def contenders(options):
    return list(COMMANDS)


def measure(name, options):
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", COMMANDS[name]], check=True, capture_output=True)
    return {"value": time.perf_counter() - began}
