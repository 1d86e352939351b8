"""`cannery demo`: a node with people, conversations and a canister of one's own in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cannery.cli.options import JsonOption
from cannery.cli.start import HostOption, PortOption


def add_to(app: typer.Typer) -> None:
    """Hang this command into the tree."""
    app.command(short_help="Start a node with people and a guestbook in it.", epilog="Example: cannery demo")(
        demo
    )


def demo(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Where everything is kept.")] = Path(
        "./cannery-demo"
    ),
    port: PortOption = None,
    host: HostOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a node that has people, conversations and a guestbook in it, and say what to try.

    It charges the Internet Computer's prices, so that one sees cycles burn, a battery, a frozen canister.
    """
    from cannery.cli.demo_story import fill_demo, people_home, set_prices
    from cannery.cli.node_run import run_node

    set_prices(data)
    run_node(data, host, port, as_json, fill_demo, people_home(data))
