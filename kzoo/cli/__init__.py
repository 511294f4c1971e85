"""The commands: one file for each verb, loaded when it is used, so that `kzoo list` and `--help` answer at once."""

import atexit
import os
import sys
from contextlib import suppress
from importlib import import_module

import click

from kzoo import runs
from kzoo.errors import KzooError

# Verb -> what it does. Files are kzoo/cli/<verb>.py, each with a click command called `command`.
VERBS = {
    "demo": "See a real network trained, tested and used, in about two minutes.",
    "list": "List the models of the catalog.",
    "info": "Show what each layer of a model costs.",
    "data": "Check a data set: broken files, duplicates, class weights.",
    "train": "Train a model.",
    "finetune": "Make a classifier from photos and a pretrained network.",
    "scout": "Rank pretrained networks for photos, before anybody trains.",
    "evaluate": "Measure a trained model on a data set.",
    "predict": "Say what a run, an export or a published model sees in images.",
    "export": "Write a trained model as a folder that takes encoded images and proves itself.",
    "verify": "Check that an export computes what it did when it was made.",
    "serve": "Serve an export over HTTP.",
    "style": "Paint a picture in the style of another.",
    "stylenet": "Train a network that paints one style in one pass; paint with it.",
    "reproduce": "Train shipped weights again and compare.",
    "weights": "List published weights, or verify a file.",
}


class Verbs(click.Group):
    def parse_args(self, ctx, args):
        line = tuple(args)
        rest = super().parse_args(ctx, args)
        token = runs.argv.set(line)  # for the record of a run; a later call of a function is not this command
        ctx.call_on_close(lambda: runs.argv.reset(token))
        return rest

    def list_commands(self, ctx):
        return list(VERBS)

    def get_command(self, ctx, name):
        return import_module(f"kzoo.cli.{name}").command if name in VERBS else None

    def resolve_command(self, ctx, args):
        if args and args[0] not in VERBS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):  # from the table: help for all verbs imports none of them
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kzoo")
def group():
    """The classic convolutional networks, as published, on Keras 3.

    \b
    Start here:  kzoo demo
    """


def main(args=None, prog_name="kzoo"):
    """Run a command line and exit: 0 for success, 1 for a KzooError (one line), 2 for wrong usage, 130 for Ctrl-C."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what matters reaches us as an exception
    try:
        group.main(args=args, prog_name=prog_name, standalone_mode=False)
    except KzooError as e:
        click.echo(f"Error: {e}", err=True)
        sys.exit(getattr(e, "exit_code", 1))
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except SystemExit:
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # kzoo list | head: click marks it so, and says 1
            sys.exit(0)
        raise


def entry(args=None):
    """`main` for a process of its own, which ends with the command: taking TensorFlow apart takes another second.

    What was registered to be done at the end is done; files are closed, and nothing else needs to be put away.
    """
    code = 0
    try:
        main(args)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    if "tensorflow" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or nobody reads
            stream.flush()
    os._exit(code)
