"""Canisters come to be, get cycles, change settings, and go.

IC interface specification, "IC method create_canister" and those around it. An id is never given twice:
counters go up only, and an id that an operator chose is marked for ever. Rules of who may are in `access`.
"""

from __future__ import annotations

from msgspec.structs import replace

from cannery.errors import Reject, RejectCode
from cannery.limits import CANISTERS_PER_SUBNET_COUNT_MAX, PROVISIONAL_CYCLES_DEFAULT
from cannery.protocol.principal import Principal
from cannery.replica import cycles, fleets, keys
from cannery.replica.management.access import (
    canister_exists,
    controllers,
    controllers_or_operators,
    creators,
    minting_operators,
)
from cannery.replica.management.deletion import count_created, created_by, delete_stopped
from cannery.replica.management.history import ChangeKind, record_change
from cannery.replica.management.methods import Method, update_method
from cannery.replica.management.request import Change
from cannery.replica.management.settings import environment_hash, plan_controllers, plan_settings
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterSettings,
    CreateCanisterArgs,
    ProvisionalCreateArgs,
    ProvisionalTopUpArgs,
    TakeCyclesArgs,
    TopUpArgs,
    UpdateSettingsArgs,
)
from cannery.replica.places import SubnetChoice, first_counter
from cannery.replica.records import AccountRecord, CanisterRecord, CanisterStatus, Settings
from cannery.replica.targets import replaced
from cannery.replica.view import show

_FIRST_COUNTER = 0x100000
_DEFAULT_SETTINGS = Settings()


def create(
    change: Change,
    settings: CanisterSettings | None,
    sender_version: int | None,
    controllers_wanted: list[Principal] | None,
    counter: int | None = None,
) -> bytes:
    """Make an empty canister without cycles and give its id; its controller is the caller unless told."""
    message = change.message
    subnet = message.subnet()
    if subnet.canister_count >= CANISTERS_PER_SUBNET_COUNT_MAX:
        raise Reject(
            RejectCode.SYS_FATAL,
            f"This subnet has {subnet.canister_count} canisters, as many as it may",
            "IC0102",
        )
    _count_creation(change)
    wanted = plan_settings(_DEFAULT_SETTINGS, settings) if settings is not None else _DEFAULT_SETTINGS
    holders = (change.caller,) if controllers_wanted is None else plan_controllers(controllers_wanted)
    canister_id = keys.canister_id(_next_counter(change) if counter is None else counter)
    now_ns = change.request.now_ns
    message.put_canister(canister_id, CanisterRecord(holders, change.caller, now_ns, settings=wanted))
    message.put_account(canister_id, AccountRecord(charged_ns=now_ns, active_ns=now_ns))
    subnet.canister_count += 1
    fleets.join_creator(message, canister_id)
    record_change(
        change,
        canister_id,
        ChangeKind.CREATION,
        sender_version,
        controllers=holders,
        environment_hash=environment_hash(settings, wanted),
    )
    return canister_id


def fund(change: Change, canister_id: bytes) -> None:
    """Charge the creation fee and make the rest of the attached cycles a new canister's balance.

    An operator who creates over HTTP attaches nothing and pays nothing, as subnet admins on the IC.
    """
    attached = change.accept()
    if attached:
        cycles.credit(change.message, canister_id, attached)
    fee = change.request.config.prices.creation
    if not fee or change.request.from_user:
        return
    if attached < fee:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"Creating a canister costs {fee} cycles, and {attached} are attached: attach more",
            "IC0403",
        )
    cycles.burn(change.message, canister_id, fee)


def _count_creation(change: Change) -> None:
    if change.request.from_user:
        return
    message, caller = change.message, change.caller
    created = created_by(message, caller)
    quota = change.request.config.canister_quota_count
    if created >= quota:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"Canister {show(caller)} has created {created} canisters here, "
            f"its quota is {quota}: delete some, or ask an operator to raise the quota",
            "IC0102",
        )
    count_created(message, caller, 1)


def check_place(change: Change, wanted: SubnetChoice | None) -> None:
    """Raise `Reject` where a creation names a subnet that this is not: the call was brought to the named one,
    if there is any.
    """
    if wanted is None or wanted.tag == "any" or change.request.config.subnet_id == wanted.id.raw:
        return
    raise Reject(
        RejectCode.CANISTER_REJECT,
        f"This node has no subnet {wanted.id}: cannery_subnets lists those that it has",
        "IC0405",
    )


def _next_counter(change: Change) -> int:
    message = change.message
    subnet = message.subnet()
    counter = max(subnet.next_canister, first_counter(change.request.config.subnet) + _FIRST_COUNTER)
    while message.get(keys.chosen_id_key(counter)) is not None:
        counter += 1
    subnet.next_canister = counter + 1
    return counter


def _chosen_counter(change: Change, wanted: Principal) -> int:
    """Check an id that an operator chose, and mark it for ever; raises `Reject`."""
    subnet_number = change.request.config.subnet
    counter = keys.canister_counter(wanted.raw)
    first, last = first_counter(subnet_number), first_counter(subnet_number + 1) - 1
    if counter is None or not first <= counter <= last:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"{wanted} is not among this subnet's canister ids, "
            f"{show(keys.canister_id(first))} to {show(keys.canister_id(last))}",
            "IC0405",
        )
    message = change.message
    given = first + _FIRST_COUNTER <= counter < message.subnet().next_canister
    if given or message.get(keys.chosen_id_key(counter)) is not None:
        raise Reject(
            RejectCode.CANISTER_REJECT, f"Canister id {wanted} is in use, or was: choose another", "IC0205"
        )
    message.put(keys.chosen_id_key(counter), b"\x01")
    return counter


# --- methods -------------------------------------------------------------------------------------------


def _create_canister(change: Change, args: CreateCanisterArgs) -> CanisterIdRecord:
    check_place(change, args.subnet)
    settings = args.settings
    holders = settings.controllers if settings is not None else None
    canister_id = create(change, settings, args.sender_canister_version, holders)
    fund(change, canister_id)
    return CanisterIdRecord(Principal(canister_id))


def _provisional_create(change: Change, args: ProvisionalCreateArgs) -> CanisterIdRecord:
    if args.specified_id is None:
        check_place(change, args.subnet)
    settings = args.settings
    holders = settings.controllers if settings is not None else None
    counter = _chosen_counter(change, args.specified_id) if args.specified_id is not None else None
    canister_id = create(change, settings, args.sender_canister_version, holders, counter)
    cycles.mint(
        change.message, canister_id, PROVISIONAL_CYCLES_DEFAULT if args.amount is None else args.amount
    )
    return CanisterIdRecord(Principal(canister_id))


def _top_up(change: Change, args: ProvisionalTopUpArgs | TopUpArgs) -> None:
    canister_id = args.canister_id.raw
    change.canister(canister_id)
    cycles.mint(change.message, canister_id, args.amount)


def _take_cycles(change: Change, args: TakeCyclesArgs) -> None:
    """Give the cycles of an empty canister to the canister that controls it and calls."""
    canister_id = args.canister_id.raw
    if change.canister(canister_id).module_hash is not None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Canister {args.canister_id} has a module, and its cycles are its own: uninstall it first",
            "IC0514",
        )
    cycles.settle_storage(change.message, canister_id)
    held = change.account(canister_id).cycles
    amount = held if args.amount is None else args.amount
    cycles.debit(change.message, canister_id, amount)
    if change.message.account(change.caller) is None:
        # A caller on another subnet gets them with its answer.
        change.cycles += amount
    else:
        cycles.credit(change.message, change.caller, amount)


def _deposit(change: Change, args: CanisterIdRecord) -> None:
    canister = change.canister(args.canister_id.raw)
    if canister.replaced_by:
        raise replaced(args.canister_id.raw, canister)
    cycles.credit(change.message, args.canister_id.raw, change.accept())


def _update_settings(change: Change, args: UpdateSettingsArgs) -> None:
    canister_id = args.canister_id.raw
    canister, message = change.canister(canister_id), change.message
    changed = replace(canister, settings=plan_settings(canister.settings, args.settings))
    change.account(canister_id).version += 1
    if args.settings.controllers is None:
        message.put_canister(canister_id, changed)
    else:
        holders = plan_controllers(args.settings.controllers)
        message.put_canister(canister_id, replace(changed, controllers=holders))
        fleets.leave_with_controllers(message, canister_id)
        record_change(
            change, canister_id, ChangeKind.CONTROLLERS, args.sender_canister_version, controllers=holders
        )
    cycles.thaw(message, canister_id)


def _delete(change: Change, args: CanisterIdRecord) -> None:
    canister_id = args.canister_id.raw
    canister, message = change.canister(canister_id), change.message
    if canister.status is not CanisterStatus.STOPPED:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Canister {args.canister_id} is {canister.status.name.lower()}: stop it before you delete it",
            "IC0510",
        )
    delete_stopped(message, canister_id)


METHODS: tuple[Method, ...] = (
    update_method("create_canister", CreateCanisterArgs, CanisterIdRecord, creators, _create_canister),
    update_method(
        "provisional_create_canister_with_cycles",
        ProvisionalCreateArgs,
        CanisterIdRecord,
        minting_operators,
        _provisional_create,
    ),
    update_method("provisional_top_up_canister", ProvisionalTopUpArgs, None, minting_operators, _top_up),
    update_method("cannery_top_up", TopUpArgs, None, minting_operators, _top_up),
    update_method("deposit_cycles", CanisterIdRecord, None, canister_exists, _deposit, from_users=False),
    update_method("cannery_cycles_take", TakeCyclesArgs, None, controllers, _take_cycles, from_users=False),
    update_method("update_settings", UpdateSettingsArgs, None, controllers, _update_settings),
    update_method("delete_canister", CanisterIdRecord, None, controllers_or_operators, _delete),
)
