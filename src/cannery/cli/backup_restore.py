"""`cannery backup restore`: a whole node into a new directory, or canisters into a running node.

Canisters go in by the public interface, as uploaded snapshots that are then loaded: what may not be restored
is refused by the node, in its words.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.backup_options import BackupOption, PlaceArgument
from cannery.cli.options import DEFAULT_URL, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import emit, format_time, note, progress
from cannery.errors import CanneryError

if TYPE_CHECKING:
    from cannery.cli.session import Session
    from cannery.node.backup.extract import Extract
    from cannery.node.backup.format.time_plan import ReplayPlan
    from cannery.node.backup.repository import Backup, Repository
    from cannery.protocol.principal import Principal

_NO_KEYS_NOTE = (
    "the backup holds no keys: before you start the node, copy operator.pem and keys/ into the directory "
    "from where you keep them. Without them it is another node to its clients, and you are not its operator"
)


def add_to(backup: typer.Typer) -> None:
    """Hang this command into the group."""
    backup.command(
        epilog=(
            "Examples: cannery backup restore /srv/backups --to /srv/cannery; "
            "cannery backup restore /srv/backups --canister book --as-new"
        )
    )(restore)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to restore into a running node."""

    fleet: str | None
    canisters: tuple[str, ...]
    as_new: bool
    may_undo: bool


def restore(
    place: PlaceArgument,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="The whole node, into this new directory.")
    ] = None,
    fleet: Annotated[
        str | None, typer.Option("--fleet", metavar="INDEX", help="A fleet, into the running node.")
    ] = None,
    canister: Annotated[
        list[str] | None,
        typer.Option("--canister", metavar="ID", help="A canister, into the running node; may be repeated."),
    ] = None,
    as_new: Annotated[
        bool, typer.Option("--as-new", help="Into new canisters instead of those that it was made of.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it although canisters have run messages since.")
    ] = False,
    number: BackupOption = None,
    until_block: Annotated[
        int | None, typer.Option("--until-block", metavar="N", min=1, help="The state after this block.")
    ] = None,
    until_time: Annotated[
        str | None,
        typer.Option("--until-time", metavar="TIME", help="The last state of a time: 2026-01-31T12:00:00Z."),
    ] = None,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Restore a node into a new directory, or a fleet or canisters into the running node."""
    from cannery.cli.problem import Problem
    from cannery.node.backup.repository import open_repository
    from cannery.node.backup.shelf import open_shelf

    wanted = _Wanted(fleet, tuple(canister or ()), as_new, yes)
    if (to is not None) + (fleet is not None) + bool(canister) != 1:
        raise Problem("say what to restore: --to DIR for the whole node, --fleet INDEX, or --canister ID")
    with progress("reading the repository") as line:
        repository = open_repository(open_shelf(place))
        backups = repository.backups()
        plan = _plan(repository, backups, number, until_block, until_time, of_node=to is not None)
        repository.load_index(line.say)
    if to is not None:
        _restore_node(repository, backups, plan, to, as_json)
    else:
        _restore_canisters(repository, backups, plan, wanted, (identity, node), as_json)


def _plan(
    repository: Repository,
    backups: Sequence[Backup],
    number: int | None,
    until_block: int | None,
    until_time: str | None,
    *,
    of_node: bool,
) -> ReplayPlan:
    """Choose the backup to begin with, and the blocks to replay."""
    from cannery.cli.problem import Problem
    from cannery.node.backup.format.time_plan import ReplayPlan, plan_block, plan_time

    if until_block is None and until_time is None:
        chosen = repository.newest_of_node() if of_node and number is None else repository.find(number)
        return ReplayPlan(chosen.head, None)
    if until_block is not None and until_time is not None:
        raise Problem("say --until-block or --until-time, not both")
    heads = [backup.head for backup in backups]
    plan = plan_block(heads, until_block) if until_block is not None else None
    if until_time is not None:
        plan = plan_time(heads, _read_time(until_time))
    if plan is None:
        raise Problem(
            f"no backup of a node here reaches {until_time or f'block {until_block}'}: "
            "'cannery backup list' shows the points in time",
            exit_code=1,
        )
    return plan


def _read_time(text: str) -> int:
    """Read a time; without a zone it is UTC."""
    from cannery.cli.problem import Problem

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Problem(f"{text!r} is no time such as 2026-01-31T12:00:00Z") from None
    zoned = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    since = zoned - datetime(1970, 1, 1, tzinfo=UTC)
    return (since // timedelta(microseconds=1)) * 1_000


# --- a whole node ------------------------------------------------------------------------------------------


def _restore_node(
    repository: Repository, backups: Sequence[Backup], plan: ReplayPlan, to: Path, as_json: bool
) -> None:
    from cannery.cli.backup import counted
    from cannery.cli.problem import Problem
    from cannery.node.backup.restore import restore_node

    head = plan.start
    if not head.is_node:
        raise Problem(
            f"backup {head.number} is not one of a whole node: restore its canisters into a running one"
        )
    with progress("restoring") as line:
        done = restore_node(repository, backups, plan, to, line.say)
    if not head.has_keys:
        note(_NO_KEYS_NOTE)
    replayed = f", {counted(done.replayed_count, 'block')} replayed" if done.replayed_count else ""
    emit(
        {
            "data": str(to.absolute()),
            "backup": head.number,
            "block": done.block,
            "block_time_ns": done.time_ns,
            "state_hash": done.state_hash.hex(),
            "round_root": done.root.hex(),
            "replayed_blocks": done.replayed_count,
            "has_keys": head.has_keys,
        },
        as_json,
        [
            f"backup {head.number} restored to block {done.block:,} ({format_time(done.time_ns)}){replayed}",
            f"state hash {done.state_hash.hex()}",
            f"start it: cannery start --data {to}",
        ],
    )


# --- canisters ---------------------------------------------------------------------------------------------


def _restore_canisters(
    repository: Repository,
    backups: Sequence[Backup],
    plan: ReplayPlan,
    wanted: _Wanted,
    who: tuple[str | None, str],
    as_json: bool,
) -> None:
    """Restore one canister after the other; what fails is told at the end, and the rest is done."""
    from cannery.cli.session import open_session, operator_identity
    from cannery.node.backup.extract import open_extract

    identity, node = who
    done: list[tuple[Principal, Principal]] = []
    failed: list[tuple[Principal, str]] = []
    with (
        open_session(node, operator_identity(identity), "restoring") as session,
        open_extract(repository, backups, plan, session.line.say) as extract,
    ):
        ids = _ids(extract, session, wanted)
        if not (wanted.as_new or wanted.may_undo):
            _refuse_to_undo(extract, session, ids)
        loader = _Loader(session, extract, wanted.as_new)
        for count, source in enumerate(ids):
            session.line.say(f"canister {count + 1:,} of {len(ids):,}")
            try:
                done.append((source, loader.load(source)))
            except CanneryError as error:
                if len(ids) == 1:
                    raise
                failed.append((source, str(error)))
    moved = [{"from": source, "canister_id": target} for source, target in done]
    shown = {"backup": plan.start.number, "restored": moved, "failed": dict(failed)}
    lines = [
        f"{target} is as it was" if source == target else f"{target} is {source} as it was"
        for source, target in done
    ]
    emit(shown, as_json, [*lines, *(f"{source} failed: {text}" for source, text in failed)])
    if failed:
        raise typer.Exit(1)


def _ids(extract: Extract, session: Session, wanted: _Wanted) -> list[Principal]:
    from cannery.protocol.principal import Principal

    if wanted.fleet is not None:
        return [Principal(raw) for raw in extract.fleet(_find(extract, session, wanted.fleet))]
    found = dict.fromkeys(_find(extract, session, text) for text in wanted.canisters)
    return [Principal(raw) for raw in found]


def _find(extract: Extract, session: Session, text: str) -> bytes:
    """Read a canister id or a name: one that the backup has, or, as parts of a node hold none, the node."""
    from cannery.node.backup.errors import BackupError

    try:
        return extract.find(text)
    except BackupError as unknown:
        try:
            return session.canister(text).raw
        except CanneryError:
            raise unknown from None


def _refuse_to_undo(extract: Extract, session: Session, ids: Sequence[Principal]) -> None:
    """Raise `Problem` where canisters have run messages since the state that they would go back to."""
    from cannery.cli.management import Management
    from cannery.cli.problem import Problem

    management = Management(session.agent)
    last_ns, last, count = 0, "", 0
    for number, canister in enumerate(ids):
        session.line.say(f"looking at canister {number + 1:,} of {len(ids):,}")
        try:
            active_ns = management.canister_metrics(canister).active_ns
        except CanneryError:
            continue  # It is gone: loading says so.
        if active_ns > extract.active_ns(canister.raw):
            count += 1
            last_ns, last = max((last_ns, last), (active_ns, str(canister)))
    if count:
        who = f"{last} has" if count == 1 else f"{count:,} canisters, {last} among them, have"
        raise Problem(
            f"{who} run messages since then, the last one at {format_time(last_ns)}, and restoring undoes "
            "what they did: say --yes, or --as-new for copies beside them",
            exit_code=1,
        )


class _Loader:
    """Puts canisters of a backup into a running node."""

    def __init__(self, session: Session, extract: Extract, as_new: bool) -> None:
        from cannery.cli.management import Management

        self._session = session
        self._extract = extract
        self._as_new = as_new
        self._management = Management(session.agent)
        self._modules = {info.hash for info in self._management.modules()}

    def load(self, source: Principal) -> Principal:
        """Restore a canister; give the id of the one that has its state now."""
        found = self._extract.archive(source.raw)
        knows_module = found.module_hash in self._modules
        module = b"" if knows_module else self._extract.module(found.module_hash)
        target = self._management.create(None, None) if self._as_new else source
        management = self._management
        snapshot = management.snapshot_begin(target, len(module), len(found.archive), found.certified_data)
        try:
            management.snapshot_send(target, snapshot, module, found.archive, self._session.line.bytes_done)
            management.snapshot_load(target, snapshot)
        except CanneryError:
            with suppress(CanneryError):
                management.snapshot_delete(target, snapshot)
            raise
        # It has done its work; left behind it would count in the canister's memory.
        management.snapshot_delete(target, snapshot)
        self._modules.add(found.module_hash)
        return target
