"""The factory of zones: makes a canister for each zone id, finds it, funds it and keeps it up to date.

A zone belongs to whoever has it made. They own it and control its canister; the factory keeps control beside
them only as they grant it, and what it does not control it neither upgrades nor funds. Making a zone costs
the factory cycles, so it is bounded for each principal, for all together, and in cycles; what is refused
costs it nothing. The fleet's index is part of the factory: operators bring releases, roll them out, fund and
watch by its methods (`fleet_...`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    continuation,
    encode_args,
    init,
    inspect_message,
    nat,
    query,
    record,
    update,
)
from cannery.cdk.management import CanisterInfo, CanisterInfoArgs, Management
from cannery.errors import RejectCode
from cannery.fleet.directory_types import Child
from cannery.fleet.funding_types import Cause, FundingPolicy, TopUpResult, Waiting
from cannery.fleet.index import Index
from cannery.fleet.rights import require_operator
from cannery.fleet.top_up_quota import check_quota

from .births import Birth, Births
from .bounds import CALL_TOKEN_SIZE_BYTES_MAX, RPC_SIZE_BYTES_MAX, ZONE_ID_SIZE_BYTES_MAX
from .catalogue import KIND, Catalogue, ZoneEntry, place_of
from .diode_types import TransferCyclesError, TransferCyclesResult, ZoneInit
from .factory_types import (
    FLEET_QUOTA,
    REQUEST_CYCLES_MIN,
    SETTINGS,
    ZONE_QUOTA,
    FactorySettings,
    ZoneInfo,
    ZoneOptions,
)
from .refusal import NS_PER_S, refuse
from .throttle import Throttle, rates_fault

MAKE = "make"
ASK = "ask"


_WHAT_ZONES_ARE_BORN_WITH = (
    "; zones are born without cycles here: where prices are not zero an operator gives them some, by "
    "cannery fleet birth zone CYCLES --index zone_factory"
)


@record
class Founding:
    """A zone that is being made."""

    zone_id: str
    owner: Principal
    factory_controls: bool
    birth: Birth


@record
class Opening:
    """A zone that is being handed over to its owner."""

    zone_id: str
    canister: Principal
    factory_controls: bool


@record
class Check:
    """A zone that the node is asked about, and who wants to know."""

    zone_id: str
    canister: Principal
    by: Principal


@record
class Pull:
    """A zone that wants cycles."""

    canister: Principal
    cycles: nat


class ZoneFactory(Canister):
    """Make zones and find them."""

    fleet = Index()
    catalogue = Catalogue()
    births = Births()
    throttle = Throttle()
    settings = StableCell(FactorySettings, SETTINGS)

    @init
    def start(self, ctx: Context) -> None:
        """Begin with quotas as Diode's factory has them: for each zone, for all of them, for one request."""
        treasury = self.fleet.treasury
        treasury.kind_quotas.put(KIND, ZONE_QUOTA)
        treasury.fleet_quota.set(FLEET_QUOTA)
        treasury.policy.set(FundingPolicy(REQUEST_CYCLES_MIN, 0, 0))

    @inspect_message
    def inspect(self, ctx: Context) -> bool:
        """Let nobody in without an identity; what the methods refuse costs nothing either."""
        if ctx.caller.is_anonymous:
            refuse(ctx, "the anonymous principal cannot own a zone: everybody could use it")
        return True

    @query
    def factory_settings(self, ctx: Context) -> FactorySettings:
        """Return how often zones may be made, and what they may cost."""
        return self.settings.get()

    @update
    def factory_settings_set(self, ctx: Context, settings: FactorySettings) -> None:
        """Set how often zones may be made, and what they may cost; for operators."""
        require_operator(ctx)
        fault = rates_fault(settings.makes) or rates_fault(settings.asks) or check_quota(settings.births)
        if fault is not None:
            ctx.reject(fault)
        self.settings.set(settings)

    # making

    @update
    def create_zone(
        self, ctx: Context, zone_id: str, options: ZoneOptions | None
    ) -> ZoneInfo | Pending[ZoneInfo]:
        """Make the zone of an id for the caller, who owns and controls it; again: return it."""
        if ctx.caller.is_anonymous:
            refuse(ctx, "the anonymous principal cannot own a zone: everybody could use it")
        options = ZoneOptions() if options is None else options
        child = self.catalogue.child(zone_id)
        if child is not None:
            return self._made_already(ctx, zone_id, child, options)
        if self.fleet.is_making(ctx, KIND, place_of(zone_id)):
            refuse(ctx, f"the zone {zone_id} is being made", retry_ns=NS_PER_S)
        fault = zone_fault(zone_id, options)
        if fault is not None:
            refuse(ctx, fault)
        return self._make(ctx, zone_id, options)

    def _made_already(
        self, ctx: Context, zone_id: str, child: Child, options: ZoneOptions
    ) -> ZoneInfo | Pending[ZoneInfo]:
        info = self.catalogue.info(zone_id)
        if info is None:
            refuse(ctx, f"nobody is known to own the zone {zone_id}: an operator deletes {child.canister}")
        if info.owner != ctx.caller:
            _refuse_taken(ctx, info)
        self.throttle.pass_or_refuse(ctx, ASK, self.settings.get().asks)
        if info.control.tag != "factory":
            return info
        return self._hand_over(ctx, Opening(zone_id, child.canister, _factory_controls(options)))

    def _make(self, ctx: Context, zone_id: str, options: ZoneOptions) -> Pending[ZoneInfo]:
        settings = self.settings.get()
        if self.fleet.registry.current(KIND) is None:
            refuse(ctx, "there is no release of zones here: an operator brings one", retry_ns=NS_PER_S)
        cycles = self.births.check(ctx, settings.births)
        self.throttle.pass_or_refuse(ctx, MAKE, settings.makes)
        birth = self.births.book(ctx, settings.births, cycles)
        self.catalogue.forget(zone_id)
        arg = encode_args(_install_argument(ctx, zone_id, options))
        founding = Founding(zone_id, ctx.caller, _factory_controls(options), birth)
        try:
            return self.fleet.create(
                ctx, KIND, place_of(zone_id), arg, then=self.made, saved=founding, cycles=cycles
            )
        except Reject as reject:
            self.births.release(birth)
            ctx.reject(f"the zone {zone_id} could not be made: {reject.message}; retry after 1 s")

    @continuation
    def made(self, ctx: Context, outcome: Outcome[Child], saved: Founding) -> ZoneInfo | Pending[ZoneInfo]:
        """Note a new zone and hand it over to its owner."""
        zone_id = saved.zone_id
        if not outcome.ok:
            self.births.release(saved.birth)
            how = "" if saved.birth.cycles else _WHAT_ZONES_ARE_BORN_WITH
            ctx.reject(f"the zone {zone_id} could not be made: {outcome.reject_message}{how}")
        info = self.catalogue.info(zone_id)
        if info is None:
            self.catalogue.put(zone_id, ZoneEntry(saved.owner, outcome.value.created_ns, False))
        elif info.owner != saved.owner:
            _refuse_taken(ctx, info)
        return self._hand_over(ctx, Opening(zone_id, outcome.value.canister, saved.factory_controls))

    def _hand_over(self, ctx: Context, opening: Opening) -> Pending[ZoneInfo]:
        """Let its owner control a zone, beside the factory or alone; repeating it does no harm."""
        departures, owners = self.fleet.departures, [self.catalogue.entries[opening.zone_id].owner]
        if opening.factory_controls:
            call = departures.joint_call(ctx, opening.canister, owners)
        else:
            call = departures.hand_over_call(ctx, opening.canister, owners)
        try:
            return ctx.call(call, then=self.handed_over, saved=opening)
        except Reject as reject:
            ctx.reject(_not_yours_yet(opening.zone_id, reject.message))

    @continuation
    def handed_over(self, ctx: Context, outcome: Outcome[None], saved: Opening) -> ZoneInfo:
        """Note that a zone's owner controls it."""
        entry = self.catalogue.entries.get(saved.zone_id)
        if not outcome.ok or entry is None:
            ctx.reject(_not_yours_yet(saved.zone_id, outcome.reject_message))
        self.catalogue.put(saved.zone_id, replace(entry, handed_over=True))
        if not saved.factory_controls:
            self.fleet.departures.handed_over(ctx, saved.canister)
        return self._info(ctx, saved.zone_id)

    # control

    @update
    def check_zone(self, ctx: Context, zone_id: str) -> Pending[ZoneInfo]:
        """Look who controls a zone, for its owner, its controllers and operators, after they have given the
        factory control or taken it away; whoever controls a zone that its owner left is its owner from then
        on. The id of a zone that was deleted is free.
        """
        child = self.catalogue.child(zone_id)
        if child is None or zone_id not in self.catalogue.entries:
            refuse(ctx, f"there is no zone {zone_id}: create it")
        self.throttle.pass_or_refuse(ctx, ASK, self.settings.get().asks)
        question = Management().canister_info(CanisterInfoArgs(child.canister, 0))
        return ctx.call(question, then=self.checked, saved=Check(zone_id, child.canister, ctx.caller))

    @continuation
    def checked(self, ctx: Context, outcome: Outcome[CanisterInfo], saved: Check) -> ZoneInfo:
        """Note what the node says of a zone."""
        zone_id, child = saved.zone_id, self.fleet.directory.get(saved.canister)
        entry = self.catalogue.entries.get(zone_id)
        if child is None or entry is None:
            refuse(ctx, f"the zone {zone_id} has left meanwhile")
        if outcome.reject_code == RejectCode.DESTINATION_INVALID:
            self._forget(ctx, zone_id, child)
            refuse(ctx, f"the zone {zone_id} was deleted: its id is free")
        if not outcome.ok:
            refuse(ctx, f"the node does not tell of {zone_id}: {outcome.reject_message}", retry_ns=NS_PER_S)
        found, by = outcome.value, saved.by
        is_controller = by in found.controllers
        if not (is_controller or by == entry.owner or ctx.is_operator(by) or ctx.is_controller(by)):
            refuse(ctx, f"{by} neither owns nor controls the zone {zone_id}")
        if is_controller and entry.owner not in found.controllers:
            entry = replace(entry, owner=by)
        if entry.owner in found.controllers:
            entry = replace(entry, handed_over=True)
        self.catalogue.put(zone_id, entry)
        self._note_control(ctx, child, found)
        return self._info(ctx, zone_id)

    def _note_control(self, ctx: Context, child: Child, found: CanisterInfo) -> int:
        """Note whether the factory controls a zone; return the release that it runs then, else 0."""
        version = self._version(found) if ctx.id in found.controllers else 0
        if version and child.state.tag == "in_custody":
            child = self.fleet.departures.note_return(ctx, child)
        if version:
            self.fleet.directory.set_versions([(child, version)])
        elif child.state.tag == "active":
            self.fleet.departures.handed_over(ctx, child.canister)
        return version

    def _version(self, found: CanisterInfo) -> int:
        module_hash = found.module_hash
        return 0 if module_hash is None else self.fleet.registry.version_of(KIND, module_hash)

    def _forget(self, ctx: Context, zone_id: str, child: Child) -> None:
        self.fleet.directory.forget(child)
        self.fleet.treasury.forget(child.canister)
        self.fleet.alarms.end_of(ctx, child.canister)
        self.catalogue.forget(zone_id)

    # cycles

    @update
    def cycles_manager_transferCycles(
        self, ctx: Context, amount: nat
    ) -> TransferCyclesResult | Pending[TransferCyclesResult]:
        """Give a zone cycles that asks for them, as far as the quotas allow; for zones that the factory
        controls."""
        child = self.fleet.directory.get(ctx.caller)
        if child is None or child.kind != KIND or child.state.tag != "active":
            refuse(ctx, "only zones that this factory controls get cycles of it")
        self.throttle.pass_or_refuse(ctx, ASK, self.settings.get().asks)
        question = Management().canister_info(CanisterInfoArgs(child.canister, 0))
        return ctx.call(question, then=self.looked_at, saved=Pull(child.canister, amount))

    @continuation
    def looked_at(
        self, ctx: Context, outcome: Outcome[CanisterInfo], saved: Pull
    ) -> TransferCyclesResult | Pending[TransferCyclesResult]:
        """Send cycles to a zone that the factory does control."""
        child = self.fleet.directory.get(saved.canister)
        if child is None or child.state.tag != "active" or not outcome.ok:
            return _no_cycles(f"the factory cannot look at this zone: {outcome.reject_message}")
        if self._note_control(ctx, child, outcome.value) == 0:
            return _no_cycles("the factory does not control this zone, or it runs no release of zones")
        wanted = Waiting(saved.cycles, Cause.request(), None)
        sent = self.fleet.treasury.send_for(ctx, child, wanted, then=self.transferred, saved=saved)
        return _transfer_result(sent) if isinstance(sent, TopUpResult) else sent

    @continuation
    def transferred(self, ctx: Context, outcome: Outcome[TopUpResult], saved: Pull) -> TransferCyclesResult:
        """Tell a zone what came."""
        return _transfer_result(outcome.value)

    def _info(self, ctx: Context, zone_id: str) -> ZoneInfo:
        info = self.catalogue.info(zone_id)
        if info is None:
            refuse(ctx, f"the zone {zone_id} has left meanwhile")
        return info


def zone_fault(zone_id: str, options: ZoneOptions) -> str | None:
    """Say what is wrong with a new zone's id and options, or None."""
    size = len(zone_id.encode())
    if not 1 <= size <= ZONE_ID_SIZE_BYTES_MAX or not zone_id.isprintable():
        return f"a zone's id has 1 to {ZONE_ID_SIZE_BYTES_MAX} bytes of printable text, this one {size}"
    if (
        max(len(text.encode()) for text in (options.rpc_host or "", options.rpc_path or ""))
        > RPC_SIZE_BYTES_MAX
    ):
        return f"rpc_host and rpc_path have at most {RPC_SIZE_BYTES_MAX} bytes"
    if len(options.call_token or b"") > CALL_TOKEN_SIZE_BYTES_MAX:
        return f"a call token has at most {CALL_TOKEN_SIZE_BYTES_MAX} bytes"
    return None


def _install_argument(ctx: Context, zone_id: str, options: ZoneOptions) -> ZoneInit:
    host, path = options.rpc_host or "", options.rpc_path or ""
    return ZoneInit(zone_id, host, path, ctx.id, options.call_token, ctx.caller)


def _factory_controls(options: ZoneOptions) -> bool:
    return options.factory_controls is not False


def _not_yours_yet(zone_id: str, why: str) -> str:
    return f"the zone {zone_id} is made, and not handed over to you yet ({why}): call create_zone again"


def _refuse_taken(ctx: Context, info: ZoneInfo) -> NoReturn:
    refuse(ctx, f"the zone {info.zone_id} is {info.owner}'s already, in {info.canister}: take another id")


def _no_cycles(text: str) -> TransferCyclesResult:
    return TransferCyclesResult.err(TransferCyclesError.other(text))


def _transfer_result(result: TopUpResult) -> TransferCyclesResult:
    """Say in a cycles-manager's words what became of a request."""
    if result.tag == "ok":
        return TransferCyclesResult.ok(result.ok)
    if result.tag == "failed":
        return _no_cycles(result.failed)
    match result.refused.reason.tag:
        case "too_few_cycles_requested":
            return TransferCyclesResult.err(TransferCyclesError.too_few_cycles_requested())
        case "aggregate_quota_reached":
            return TransferCyclesResult.err(TransferCyclesError.aggregate_quota_reached())
        case "canister_quota_reached":
            return TransferCyclesResult.err(TransferCyclesError.canister_quota_reached())
        case "battery_low":
            return TransferCyclesResult.err(TransferCyclesError.insufficient_cycles_available())
        case _:
            return _no_cycles(result.refused.text)
