"""Options and outputs that several commands share."""

import json as json_library
import os
import sys
import tempfile

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def shape(ctx, param, value):
    """A click callback: "160x160x3", "160,160,3" or "160" to (160, 160, 3)."""
    if value is None:
        return None
    try:
        numbers = tuple(int(n) for n in value.lower().replace(",", "x").split("x"))
    except ValueError:
        numbers = ()
    numbers = {1: numbers * 2 + (3,), 2: numbers + (3,)}.get(len(numbers), numbers)
    if len(numbers) != 3 or min(numbers) < 1:
        raise click.BadParameter(f"expected height x width x channels, such as 160x160x3; got '{value}'.")
    return numbers


input_shape = click.option(
    "--input-shape", callback=shape, metavar="HxWxC", help="Such as 160x160x3; as published by default."
)


def print_json(data):
    """Data goes to stdout; NaN and infinity, which JSON lacks, become null."""
    click.echo(json_text(data))


def json_text(data):
    """JSON in UTF-8 that can be printed: the bytes of a file name that is none are escaped, which is JSON, too."""
    text = json_library.dumps(_finite(data), indent=2, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _finite(x):
    if isinstance(x, dict):
        return {k: _finite(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_finite(v) for v in x]
    if isinstance(x, float) and (x != x or x in (float("inf"), float("-inf"))):
        return None
    return x


def load_keras():
    """Import Keras and its backend, without the chatter that their C++ writes.

    TensorFlow 2.21 writes some lines to file descriptor 2 while it is imported, whatever the environment says. If the
    import fails, what was held back is shown.
    """
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow

            tensorflow.config.list_physical_devices()  # looks for GPUs, and complains if there is none
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
