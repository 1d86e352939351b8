"""`cannery canister status` and `settings`: what the management canister tells, and changes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.options import DEFAULT_URL, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import columns, emit, format_size, record_fields

if TYPE_CHECKING:
    from cannery.protocol.principal import Principal
    from cannery.replica.management.types import (
        CanisterStatusResult,
        DefiniteCanisterSettings,
        Visibility,
    )

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Canister id or name.")]
WhoList = list[str] | None
NatOption = int | None


def add_to(canister: typer.Typer) -> None:
    """Hang these commands into the group."""
    canister.command(epilog="Example: cannery canister status book --json")(status)
    canister.command(
        epilog="Examples: cannery canister settings book; cannery canister settings book --add-controller ann"
    )(settings)


def status(
    canister_id: IdArgument,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show status, module, memory, cycles and settings of a canister; controllers only."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity

    with open_session(node, operator_identity(identity), "asking for the status") as session:
        target = session.canister(canister_id)
        found = Management(session.agent).status(target)
    shown = {"canister_id": target, **record_fields(found)}
    emit(shown, as_json, columns(_status_rows(target, found)))


def settings(
    canister_id: IdArgument,
    add_controller: Annotated[
        WhoList,
        typer.Option("--add-controller", metavar="WHO", help="Principal, identity name or canister id."),
    ] = None,
    remove_controller: Annotated[
        WhoList, typer.Option("--remove-controller", metavar="WHO", help="As with --add-controller.")
    ] = None,
    freezing_threshold: Annotated[
        NatOption,
        typer.Option(
            "--freezing-threshold", metavar="SECONDS", min=0, help="Stop updates this long before cycles end."
        ),
    ] = None,
    memory_allocation: Annotated[
        NatOption,
        typer.Option("--memory-allocation", metavar="BYTES", min=0, help="Reserve this much memory."),
    ] = None,
    wasm_memory_limit: Annotated[
        NatOption,
        typer.Option("--memory-limit", metavar="BYTES", min=0, help="Refuse updates beyond this much."),
    ] = None,
    log_visibility: Annotated[
        str | None,
        typer.Option("--log-visibility", metavar="public|controllers", help="Who may read the log."),
    ] = None,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show the settings of a canister, changed as the options say."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity, read_principal
    from cannery.replica.management.types import CanisterSettings

    added = [read_principal(who) for who in add_controller or ()]
    removed = [read_principal(who) for who in remove_controller or ()]
    visibility = None if log_visibility is None else _visibility(log_visibility)
    with open_session(node, operator_identity(identity), "changing settings") as session:
        management, target = Management(session.agent), session.canister(canister_id)
        found = management.status(target)
        change = CanisterSettings(
            controllers=_controllers(found.settings.controllers, added, removed)
            if added or removed
            else None,
            freezing_threshold=freezing_threshold,
            memory_allocation=memory_allocation,
            wasm_memory_limit=wasm_memory_limit,
            log_visibility=visibility,
        )
        if change != CanisterSettings():
            management.update_settings(target, change)
            if change.controllers is not None and session.agent.principal not in change.controllers:
                emit({"controllers": change.controllers}, as_json, ["done; you control it no longer"])
                return
            found = management.status(target)
    emit(found.settings, as_json, columns(_settings_rows(found.settings)))


def _controllers(
    present: list[Principal], added: list[Principal], removed: list[Principal]
) -> list[Principal]:
    """Give the controllers as changed, in a fixed order; somebody must remain."""
    from cannery.cli.problem import Problem

    absent = [who for who in removed if who not in present]
    if absent:
        raise Problem(f"{absent[0]} is no controller of it", exit_code=1)
    changed = sorted({*present, *added} - set(removed))
    if not changed:
        raise Problem("a canister without a controller can never be changed again; leave one")
    return changed


def _visibility(text: str) -> Visibility:
    from cannery.cli.problem import Problem
    from cannery.replica.management.types import Visibility

    if text not in ("public", "controllers"):
        raise Problem(f"--log-visibility is 'public' or 'controllers', not {text!r}")
    return Visibility.public() if text == "public" else Visibility.controllers()


def _status_rows(target: Principal, found: CanisterStatusResult) -> list[tuple[str, str]]:
    return [
        ("canister", str(target)),
        ("status", found.status.tag),
        ("module", "none" if found.module_hash is None else found.module_hash.hex()),
        ("version", str(found.version)),
        ("memory", format_size(found.memory_size)),
        ("cycles", str(found.cycles)),
        ("burned per day", str(found.idle_cycles_burned_per_day)),
        *_settings_rows(found.settings),
    ]


def _settings_rows(found: DefiniteCanisterSettings) -> list[tuple[str, str]]:
    return [
        ("controllers", " ".join(str(who) for who in found.controllers)),
        ("freezing threshold", f"{found.freezing_threshold} s"),
        ("memory allocation", format_size(found.memory_allocation)),
        ("memory limit", "none" if not found.wasm_memory_limit else format_size(found.wasm_memory_limit)),
        ("log visibility", found.log_visibility.tag),
    ]
