"""`cannery identity`: keys of one's own, in PEM files that the `icp` tool reads and writes too."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cannery.cli.options import JsonOption
from cannery.cli.output import columns, emit

identity = typer.Typer(
    name="identity",
    short_help="Your identities.",
    help="Your identities: key files in ~/.config/cannery (or CANNERY_HOME), as the icp tool reads them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class KeyType(StrEnum):
    """Kinds of keys that can be made."""

    ED25519 = "ed25519"
    SECP256K1 = "secp256k1"


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name of your choice.")]


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    app.add_typer(identity)


@identity.command(epilog="Example: cannery identity new ann")
def new(
    name: NameArgument,
    key_type: Annotated[KeyType, typer.Option("--type", help="Kind of key.")] = KeyType.ED25519,
    as_json: JsonOption = False,
) -> None:
    """Make a new key and print its principal."""
    from cannery.client.identity_store import IdentityStore

    store = IdentityStore()
    principal = store.create(name, key_type.value).principal
    emit({"name": name, "principal": principal, "file": str(store.path(name))}, as_json, [str(principal)])


@identity.command(name="list", epilog="Example: cannery identity list --json")
def list_identities(as_json: JsonOption = False) -> None:
    """List your identities and their principals."""
    from cannery.client.identity_store import IdentityStore

    store = IdentityStore()
    found = [{"name": name, "principal": str(store.load(name).principal)} for name in store.names()]
    rows = [(entry["name"], entry["principal"]) for entry in found]
    emit(
        found, as_json, columns(rows) if rows else ["no identities yet; make one: cannery identity new NAME"]
    )


@identity.command(epilog="Example: cannery identity principal ann")
def principal(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print the principal of an identity."""
    from cannery.client.identity_store import IdentityStore

    found = IdentityStore().load(name).principal
    emit({"name": name, "principal": found}, as_json, [str(found)])


@identity.command(
    name="import", epilog="Example: icp identity export ann > ann.pem; cannery identity import ann.pem"
)
def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A PEM file with an Ed25519 or secp256k1 key.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Its name here; without it the file's name.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take in the key of a PEM file and print its principal."""
    from cannery.client.identity_store import IdentityStore

    chosen = name or file.stem
    found = IdentityStore().import_pem(chosen, file).principal
    emit({"name": chosen, "principal": found}, as_json, [str(found)])
