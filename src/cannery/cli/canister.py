"""`cannery canister`: make, look at, call and end canisters. IDs may be names from /cannery.json."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.options import DEFAULT_URL, CandidOption, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import emit, note

if TYPE_CHECKING:
    from cannery.cli.management import Management
    from cannery.protocol.principal import Principal
    from cannery.replica.places import SubnetChoice

canister = typer.Typer(
    name="canister",
    short_help="Create, call and look after canisters.",
    help="Canisters: create, install, call, look after. ID is a canister id, or a name that the node knows.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Canister id or name.")]


class Mode(StrEnum):
    """What an installation does with what is there; `auto` installs into an empty canister, else upgrades."""

    AUTO = "auto"
    INSTALL = "install"
    REINSTALL = "reinstall"
    UPGRADE = "upgrade"


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    from cannery.cli import canister_settings, canister_snapshots, canister_watch

    canister_settings.add_to(canister)
    canister_snapshots.add_to(canister)
    canister_watch.add_to(canister)
    app.add_typer(canister)


@canister.command(epilog="Example: cannery canister create --name book")
def create(
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name it on the node; the name must be free.")
    ] = None,
    controller: Annotated[
        list[str] | None,
        typer.Option("--controller", metavar="WHO", help="Principal or identity name; may be repeated."),
    ] = None,
    cycles: Annotated[
        int | None, typer.Option("--cycles", metavar="N", min=0, help="Cycles to mint for it.")
    ] = None,
    subnet: Annotated[
        str | None,
        typer.Option(
            "--subnet",
            metavar="SUBNET",
            help="A subnet's number or principal, or any: the one with the fewest canisters.",
        ),
    ] = None,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Create an empty canister and print its id; operators only."""
    from cannery.cli.management import Management
    from cannery.cli.problem import Problem
    from cannery.cli.session import open_session, operator_identity, read_principal

    controllers = [read_principal(who) for who in controller] if controller else None
    with open_session(node, operator_identity(identity), "creating a canister") as session:
        management = Management(session.agent)
        taken = None if name is None else management.names().get(name)
        if taken is not None:
            raise Problem(f"the name {name!r} belongs to {taken}; choose another", exit_code=1)
        created = management.create(controllers, cycles, _read_subnet(management, subnet))
        if name is not None:
            management.name_set(name, created)
    emit({"canister_id": created, "name": name}, as_json, [str(created)])


def _read_subnet(management: Management, text: str | None) -> SubnetChoice | None:
    """Read where a canister is to be made; a number is looked up."""
    from cannery.cli.problem import Problem
    from cannery.protocol.principal import Principal, PrincipalError
    from cannery.replica.places import SubnetChoice

    if text is None or text == "any":
        return None if text is None else SubnetChoice.any()
    subnets = management.subnets()
    if text.isascii() and text.isdigit() and int(text) < len(subnets):
        return SubnetChoice.id(subnets[int(text)])
    try:
        wanted = Principal.parse(text)
    except PrincipalError:
        wanted = None
    if wanted not in subnets:
        raise Problem(
            f"there is no subnet {text!r} here: say any, 0 to {len(subnets) - 1}, or one of "
            f"{', '.join(map(str, subnets))}"
        )
    assert wanted is not None, "it is one of them"
    return SubnetChoice.id(wanted)


@canister.command(
    epilog="Examples: cannery canister install book guestbook.py; "
    "cannery canister install book HASH --mode upgrade"
)
def install(
    canister_id: IdArgument,
    module: Annotated[
        str,
        typer.Argument(metavar="MODULE", help="A .py or .wasm file, or the hash of a module of the node."),
    ],
    mode: Annotated[
        Mode, typer.Option("--mode", help="'auto' installs into an empty canister, else upgrades.")
    ] = Mode.AUTO,
    arg: CandidOption = None,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Install a module into a canister."""
    from cannery.cli.candid_arguments import install_argument
    from cannery.cli.installing import ModuleChoice, choose_mode
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity

    choice = ModuleChoice.read(module)
    argument = install_argument(choice.did, arg)
    with open_session(node, operator_identity(identity), "installing") as session:
        management, target = Management(session.agent), session.canister(canister_id)
        if choice.module is not None:
            session.line.say("bringing the module")
            management.module_bring(choice.module, choice.hash)
        chosen = choose_mode(session.agent, target, mode.value)
        management.install(target, chosen, choice.hash, argument)
    emit(
        {"canister_id": target, "mode": chosen, "hash": choice.hash},
        as_json,
        [f"{chosen} of {choice.hash.hex()[:16]} on {target} done"],
    )


@canister.command(
    epilog="Examples: cannery canister call book sign '(\"hello\")'; "
    "cannery canister call book latest '(3)' --query"
)
def call(
    canister_id: IdArgument,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method's name.")],
    candid: Annotated[
        str,
        typer.Argument(metavar="CANDID", help="""Arguments, as in '("x", 3 : nat64)'; '-' reads stdin."""),
    ] = "()",
    query: Annotated[
        bool, typer.Option("--query", help="Ask as a query: answered at once, not by the whole subnet.")
    ] = False,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Call a method and print its results as Candid text."""
    import sys

    from cannery.cli.calling import call_method
    from cannery.cli.session import caller_identity, open_session

    text = sys.stdin.read() if candid == "-" else candid
    with open_session(node, caller_identity(identity), f"calling {method}") as session:
        shown, values = call_method(session, session.canister(canister_id), method, text, as_query=query)
    emit(values, as_json, shown.splitlines())


@canister.command(epilog="Example: cannery canister start book")
def start(
    canister_id: IdArgument,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Start a stopped canister."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity

    with open_session(node, operator_identity(identity), "starting") as session:
        target = session.canister(canister_id)
        Management(session.agent).start(target)
    _done(target, "started", as_json)


@canister.command(epilog="Example: cannery canister stop book --force")
def stop(
    canister_id: IdArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Do not wait for calls in flight: reject what is open.")
    ] = False,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Stop a canister, once its calls in flight have ended."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity

    with open_session(node, operator_identity(identity), "stopping") as session:
        target = session.canister(canister_id)
        session.line.say("waiting for calls in flight")
        Management(session.agent).stop(target, force=force)
    _done(target, "stopped", as_json)


@canister.command(epilog="Example: cannery canister stop book; cannery canister delete book")
def delete(
    canister_id: IdArgument,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Delete a stopped canister with all its state, for good; its name becomes free."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity
    from cannery.client.errors import Rejected

    with open_session(node, operator_identity(identity), "deleting") as session:
        management, target = Management(session.agent), session.canister(canister_id)
        management.delete(target)
        for name in sorted(name for name, named in management.names().items() if named == target):
            try:
                management.name_set(name, None)
            except Rejected as error:
                note(f"the name {name} stays: {error}")
    _done(target, "deleted", as_json)


@canister.command(name="top-up", epilog="Example: cannery canister top-up book 1000000000")
def top_up(
    canister_id: IdArgument,
    amount: Annotated[int, typer.Argument(metavar="CYCLES", min=1, help="How many cycles to mint for it.")],
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Mint cycles for a canister; operators only."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity

    with open_session(node, operator_identity(identity), "topping up") as session:
        management, target = Management(session.agent), session.canister(canister_id)
        management.top_up(target, amount)
        balance = management.status(target).cycles
    emit({"canister_id": target, "cycles": balance}, as_json, [f"{target} has {balance} cycles"])


def _done(target: Principal, word: str, as_json: bool) -> None:
    emit({"canister_id": target, "status": word}, as_json, [f"{target} {word}"])
