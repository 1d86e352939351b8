"""`cannery build` and `cannery deploy`: from a Python file to a module, and to a canister that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.options import DEFAULT_URL, CandidOption, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import emit, format_size, note

if TYPE_CHECKING:
    from cannery.cdk.build import BuiltModule
    from cannery.cli.session import Session
    from cannery.protocol.principal import Principal

SourceArgument = Annotated[
    str,
    typer.Argument(metavar="FILE.py", help="The canister's source; FILE.py:Class where it holds several."),
]
ImportsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        metavar="PACKAGE",
        help="A third-party package that the node's configuration allows; may be repeated.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    app.command(
        short_help="Run or upgrade a canister from its source.",
        epilog="Examples: cannery deploy guestbook.py; "
        "cannery deploy guestbook.py --name book --arg '(\"hi\")'",
    )(deploy)
    app.command(
        short_help="Make a module out of a canister's source.",
        epilog="Example: cannery build guestbook.py --out build",
    )(build)


def build(
    file: SourceArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write; without it beside the source."),
    ] = None,
    allow_import: ImportsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a canister's source and write its module (.wasm) and its interface (.did)."""
    from cannery.cli.building import build_source, read_canister

    source = read_canister(file)
    built = build_source(source, frozenset(allow_import or ()))
    folder = out or Path(file.partition(".py:")[0]).parent
    folder.mkdir(parents=True, exist_ok=True)
    module_path, did_path = folder / f"{source.name}.wasm", folder / f"{source.name}.did"
    module_path.write_bytes(built.module)
    did_path.write_text(built.did, encoding="utf-8")
    emit(
        {"wasm": str(module_path), "did": str(did_path), "hash": built.hash, "size": len(built.module)},
        as_json,
        [
            f"{module_path}  {format_size(len(built.module))}, hash {built.hash.hex()}",
            f"{did_path}",
        ],
    )


def deploy(
    file: SourceArgument,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Its name on the node; without it the file's."),
    ] = None,
    arg: CandidOption = None,
    allow_import: ImportsOption = None,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Build a canister, bring it to the node and run it; a second time upgrades it. Prints its id last."""
    from cannery.cli.building import build_source, read_canister
    from cannery.cli.candid_arguments import install_argument
    from cannery.cli.session import open_session, operator_identity

    source = read_canister(file)
    built = build_source(source, frozenset(allow_import or ()))
    argument = install_argument(built.did, arg)
    with open_session(node, operator_identity(identity), f"deploying {name or source.name}") as session:
        done = install_named(session, built, name or source.name, argument)
    if not as_json:
        note(f"{done.action}: {name or source.name}, module {built.hash.hex()[:16]}")
    emit(
        {"canister_id": done.canister_id, "action": done.action, "hash": built.hash},
        as_json,
        [str(done.canister_id)],
    )


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which canister runs the module now, and whether it was `installed`, `upgraded` or `unchanged`."""

    canister_id: Principal
    action: str


def install_named(session: Session, built: BuiltModule, name: str, argument: bytes) -> Deployment:
    """Bring a module and have the canister of this name run it; the first time creates the canister."""
    from cannery.cli.management import Management

    management = Management(session.agent)
    session.line.say("bringing the module")
    management.module_bring(built.module, built.hash)
    canister_id = management.names().get(name)
    if canister_id is None:
        session.line.say("creating the canister")
        canister_id = management.create(None, None)
        management.name_set(name, canister_id)
    present = session.agent.module_hash(canister_id)
    mode = "install" if present is None else "upgrade"
    session.line.say(f"{mode} of {canister_id}")
    management.install(canister_id, mode, built.hash, argument)
    return Deployment(canister_id, "installed" if present is None else "upgraded")
