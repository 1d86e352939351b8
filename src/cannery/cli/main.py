"""The entry point of `cannery`: the tree of commands, and the one place that turns errors into lines and
exit codes.

Commands import what they need when they run, so that `cannery --help` answers at once.
"""

from __future__ import annotations

import os
import sys

import typer

from cannery.cli import (
    app_command,
    backup,
    canister,
    demo,
    deploy,
    fleet,
    identity,
    module,
    operator,
    people,
    start,
    store,
    stress,
    trust,
    zone,
)
from cannery.cli.output import complain
from cannery.errors import CanneryError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_UNVERIFIED = 4
EXIT_EXPIRED = 5
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="cannery",
    help=(
        "Small durable servers in Python, one for every user, group or zone.\n\n"
        "Run a node: cannery start. Write to somebody: cannery identity new ann; "
        "cannery register ann --identity ann; cannery send bob 'hello' --identity ann. "
        "Deploy a canister of your own: cannery deploy guestbook.py."
    ),
    epilog=(
        "Exit codes: 0 done; 1 refused by the node or a canister; 2 wrong usage or input; "
        "3 node not reachable; "
        "4 answer not verified; 5 no answer in time; 130 interrupted. "
        "CANNERY_URL names the node, CANNERY_IDENTITY the identity, CANNERY_DATA the data directory, "
        "CANNERY_INDEX the index of the fleet, CANNERY_HOME the folder of identities and pins."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for part in (
    start,
    demo,
    app_command,
    identity,
    people,
    deploy,
    module,
    operator,
    canister,
    fleet,
    backup,
    store,
    zone,
    stress,
    trust,
):
    part.add_to(app)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors become one line on stderr."""
    try:
        code = app(arguments, prog_name="cannery", standalone_mode=False)
        sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as error:
        return _report_usage(error)
    except (typer.Abort, KeyboardInterrupt):
        complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; what is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except CanneryError as error:
        complain(str(error))
        return exit_code_of(error)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return EXIT_FAILED
    return code if isinstance(code, int) else 0


def _report_usage(error: typer.TyperException) -> int:
    """Say what is wrong with the arguments, and where help is."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        print(context.get_help())
        return EXIT_USAGE
    format_message = getattr(error, "format_message", error.__str__)
    command = context.command_path if context is not None else "cannery"
    complain(f"{format_message()} See: {command} --help")
    return EXIT_USAGE


def exit_code_of(error: CanneryError) -> int:
    """Give the exit code of an error that Cannery raises on purpose."""
    from cannery.cli.problem import Problem
    from cannery.client.errors import Expired, Unreachable, Unverified
    from cannery.errors import DecodeError

    if isinstance(error, Problem):
        return error.exit_code
    if isinstance(error, Unreachable):
        return EXIT_UNREACHABLE
    if isinstance(error, Unverified):
        return EXIT_UNVERIFIED
    if isinstance(error, Expired):
        return EXIT_EXPIRED
    return EXIT_USAGE if isinstance(error, DecodeError) else EXIT_FAILED
