"""The command line: one file per verb; each parses, calls the API, and prints."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.main import get_command

from foretaste import __version__
from foretaste.cli.bench import bench
from foretaste.cli.cleanse import cleanse
from foretaste.cli.demo import demo
from foretaste.cli.guard import guard
from foretaste.cli.inspect import inspect
from foretaste.cli.output import say
from foretaste.cli.poison import poison
from foretaste.cli.repair import repair
from foretaste.cli.train import train
from foretaste.errors import ForetasteError, UsageError

INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C stopped."""

app = typer.Typer(
    help="Keep backdoors out of image classifiers: cleanse training data, inspect and repair models, guard inputs.",
    epilog="Exit codes: 0 nothing found, 1 poison, a backdoor or trojaned inputs found, 2 the run failed, 4 bad usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (demo, cleanse, inspect, repair, poison, train):
    app.command()(verb)
app.add_typer(guard, name="guard")
app.add_typer(bench, name="bench")


@dataclass
class Session:
    """What the global options set."""

    debug: bool = False


def show_version(wanted: bool) -> None:
    """Print the version and end, if wanted."""
    if wanted:
        typer.echo(f"foretaste {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before the verb."""
    context.obj.debug = debug


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: what to run, without the program's name; the process's own arguments when left out.

    Returns:
        0 nothing found, 1 poison, a backdoor or trojaned inputs found, 2 the run failed, 4 bad usage, 130 interrupted.
    """
    session = Session()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal cannot show must not end the run
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int | None = get_command(app).main(
            args=arguments, prog_name="foretaste", standalone_mode=False, obj=session
        )
    except typer.TyperException as error:
        message = error.format_message()
        if "\n" in message:  # no verb at all: the message is the help page
            typer.echo(message, err=True)
            return UsageError.exit_code
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "foretaste"
        return fail(f"{message.rstrip('.')}; see {command} --help", UsageError.exit_code)
    except SystemExit:  # typer's answer to a closed pipe is exit code 1, which would read as "poison found"
        return ForetasteError.exit_code
    except Exception as error:
        if session.debug:
            traceback.print_exc(file=sys.stderr)
        told = error if isinstance(error, ForetasteError) else ForetasteError(sentence(error))
        return fail(told.sentence, told.exit_code, told.details)
    if status == INTERRUPTED:
        typer.echo("interrupted; start again with the same arguments to go on", err=True)
    return status or 0


def sentence(error: Exception) -> str:
    """Say in one sentence what went wrong that nobody had foreseen."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {error} (run foretaste --debug … for the traceback)"


def fail(message: str, exit_code: int, details: Sequence[str] = ()) -> int:
    """Print what went wrong to standard error, in one line and one for each detail, and return the exit code."""
    for line in (f"foretaste: error: {message}", *details):
        say(line, err=True)
    return exit_code
