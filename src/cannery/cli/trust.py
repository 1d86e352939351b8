"""`cannery trust`: the remedy where a node was set up anew and shows another root key than the pinned one."""

from __future__ import annotations

import typer

from cannery.cli.options import DEFAULT_URL, JsonOption, NodeOption
from cannery.cli.output import emit


def add_to(app: typer.Typer) -> None:
    """Hang this command into the tree."""
    app.command(
        short_help="Believe a node that was set up anew.",
        epilog="Example: cannery trust --node http://127.0.0.1:4943",
    )(trust)


def trust(node: NodeOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Pin the root key that a node shows now, in place of the one pinned before."""
    from cannery.cli.session import shown_root_key
    from cannery.client.identity_store import PinStore, origin_of

    origin = origin_of(node)
    root_key = shown_root_key(origin)
    PinStore().set(origin, root_key)
    emit(
        {"node": origin, "root_key": root_key},
        as_json,
        [f"{origin} is trusted with root key", root_key.hex()],
    )
