"""The commands: one file for each verb, imported when it is used, so that `kzoo list` and `--help` are fast."""

from __future__ import annotations

import atexit
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module

import click

from kzoo import runs
from kzoo.errors import KzooError, out_of_memory, printable
from kzoo.hardware import in_own_process, quiet_tensorflow

FULL = (errno.ENOSPC, errno.EDQUOT)
# Verb -> help text. The file kzoo/cli/<verb>.py has the click command as `command`.
VERBS = {
    "demo": "Fine-tune, test, export and use a network, in about two minutes.",
    "list": "List the models of the catalog.",
    "info": "Show the parameters, multiply-adds and memory of each layer of a model.",
    "data": "Check a data set: corrupt files, duplicates, class weights.",
    "train": "Train a model.",
    "finetune": "Fine-tune a pretrained network on your photos.",
    "scout": "Rank pretrained networks for your photos, before training.",
    "evaluate": "Measure a trained model on a data set.",
    "predict": "Classify images with a run, an export or a published model.",
    "export": "Export a trained model as a SavedModel that takes encoded images.",
    "verify": "Check that an export gives the results it gave when it was written.",
    "serve": "Serve an export over HTTP.",
    "visualize": "Look inside a network: filters, feature maps, which pixels count.",
    "style": "Paint a picture in the style of another.",
    "stylenet": "Paint in one pass, with kzoo's own network or one trained here.",
    "reproduce": "Train shipped weights again, and compare.",
    "weights": "List published weights, or verify a file.",
}


@cache
def verb(name: str) -> click.Command:
    """Import a command; it and its subcommands get the option --import."""
    from kzoo.cli.options import own_networks

    command = import_module(f"kzoo.cli.{name}").command
    for each in command.commands.values() if isinstance(command, click.Group) else [command]:
        own_networks(each)
    return command


class Verbs(click.Group):
    """A group whose commands are imported when they are used."""

    def parse_args(self, ctx, args):
        line = tuple(args)
        rest = super().parse_args(ctx, args)
        # For config.json. It is reset at the end, since later calls of functions are not made by this command.
        token = runs.argv.set(line)
        ctx.call_on_close(lambda: runs.argv.reset(token))
        return rest

    def list_commands(self, ctx):
        return list(VERBS)

    def get_command(self, ctx, name):
        return verb(name) if name in VERBS else None

    def resolve_command(self, ctx, args):
        if args and args[0] not in VERBS:
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            guess = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{guess}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):  # from the table, so that --help imports no verb
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="kzoo")
def group():
    """The classic convolutional networks, as published, on Keras 3.

    \b
    Start here:  kzoo demo
    """


def main(args: Sequence[str] | None = None, prog_name: str = "kzoo") -> None:
    """Run a command line and exit.

    Args:
        args: the arguments; those of this process by default.
        prog_name: for usage messages.

    Raises:
        SystemExit: with the code 0 for success, 1 for a KzooError or too little memory (printed in one line), 2 for
            wrong usage, 130 for Ctrl-C.
    """
    quiet_tensorflow()  # errors arrive as exceptions; the rest is noise
    try:
        group.main(args=args, prog_name=prog_name, standalone_mode=False)
    except KzooError as e:
        click.echo(f"Error: {printable(e)}", err=True)
        sys.exit(getattr(e, "exit_code", 1))
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except SystemExit:
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # `kzoo list | head`: click exits with 1
            sys.exit(0)
        raise
    except Exception as e:
        if isinstance(e, OSError) and e.errno in FULL and e.filename is None:  # the output is directed there
            click.echo(f"Error: The output can't be written ({e.strerror}).", err=True)
            sys.exit(1)
        if not (shortage := out_of_memory(e)):
            raise
        click.echo(
            f"Error: There is not enough memory ({printable(shortage)}). Smaller batches, pictures or a smaller "
            "network need less; or end other programs.",
            err=True,
        )
        sys.exit(1)


def entry(args: Sequence[str] | None = None) -> None:
    """`main` for a process of its own: exits without unloading TensorFlow, which would take another second.

    Functions that were registered with atexit run, and output is flushed; nothing else needs to be cleaned up.

    Args:
        args: the arguments; those of this process by default.
    """
    code = 0
    in_own_process()
    try:
        main(args)
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    if "tensorflow" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or a closed pipe
            stream.flush()
    os._exit(code)
