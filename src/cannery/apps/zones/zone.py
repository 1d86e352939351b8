"""A zone: a group of peers with their own canister, which keeps their messages, attachments, files and
metadata while peers are away.

Its interface holds that of Diode's zone availability canister (github diodechain/zone_availability_canister,
version 413), method for method and type for type, and goes on from there: roles and invitations, limits,
history requests, acknowledgements. The components beside this module have the methods; here are the system's.
"""

from __future__ import annotations

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Service,
    StableCell,
    continuation,
    init,
    inspect_message,
    method,
    nat,
    query,
    update,
)
from cannery.fleet.ownership import SharedOwnership

from . import bounds
from .arrivals import Arrivals
from .attachments import Attachments
from .diode_types import (
    AggregateStatusV1,
    HttpResponse,
    MetaDataInfo,
    TransferCyclesError,
    TransferCyclesResult,
    TransformArgs,
    ZoneInit,
)
from .file_tree import FileTree
from .files import Files
from .history import History
from .key_shelf import KeyShelf
from .keys import Keys
from .lapses import Lapses
from .mailbox import Mailbox
from .members import Members
from .messages import Messages
from .metadata import Metadata
from .refusal import refuse
from .retention import Retention
from .roles import NONE

VERSION = 413
TOP_UP_BELOW_CYCLES = 700_000_000_000
TOP_UP_BY_CYCLES = 500_000_000_000
# What strangers may ask for: to become members, and to be looked up at the role provider.
OPEN_METHODS = frozenset({"join", "refresh_role", "update_role", "update_identity_role"})
# What those who control or operate the zone may call, members or not.
INSIDERS_METHODS = frozenset({"ownership_found", "request_topup_if_low"})
UNFOUNDED = ZoneInit("", "", "", Principal.anonymous(), None, None)


class Battery(Service):
    """What a zone asks of the canister that funds it (CycleOps' cycles-manager)."""

    @method
    def cycles_manager_transferCycles(self, amount: nat) -> TransferCyclesResult: ...


class Zone(Canister):
    """Keep a group's messages, attachments and files for members who are away."""

    about = StableCell(ZoneInit, UNFOUNDED)
    founded_ns = StableCell(int, 0)
    ownership = SharedOwnership()
    members = Members()
    lapses = Lapses()
    key_shelf = KeyShelf()
    keys = Keys()
    mailbox = Mailbox()
    tree = FileTree()
    retention = Retention()
    arriving = Arrivals()
    messages = Messages()
    history_requests = History()
    attachments = Attachments()
    files = Files()
    metadata = Metadata()

    @init
    def found(self, ctx: Context, about: ZoneInit) -> None:
        """Found the zone; whoever installs it owns it unless the argument names an owner."""
        self.about.set(about)
        self.founded_ns.set(ctx.now_ns)
        self.members.found(ctx, ctx.caller if about.owner is None else about.owner)
        self.history_requests.found(ctx)
        self.tree.found(ctx)

    @inspect_message
    def inspect(self, ctx: Context) -> bool:
        """Let in members, and strangers only with what makes them members: what they send costs the zone.
        Whoever is not let in reads why, and when to come back.
        """
        is_insider = ctx.is_controller(ctx.caller) or ctx.is_operator(ctx.caller)
        if ctx.method_name in INSIDERS_METHODS and is_insider:
            return True
        return ctx.method_name in OPEN_METHODS or self.members.require(ctx) > NONE

    # facts

    @query
    def get_zone_id(self, ctx: Context) -> str:
        """Return the zone's id; it is what everybody may know."""
        return self.about.get().zone_id

    @query
    def get_version(self, ctx: Context) -> nat:
        """Return the version of Diode's interface that this zone speaks."""
        return VERSION

    @query
    def get_installation_id(self, ctx: Context) -> int:
        """Return when the zone was founded; another number means that it began anew."""
        self.members.require(ctx)
        return self.founded_ns.get()

    @query
    def get_cycles_balance(self, ctx: Context) -> nat:
        """Return the zone's cycles, to members and to those who control or operate it."""
        if not (ctx.is_controller(ctx.caller) or ctx.is_operator(ctx.caller)):
            self.members.require(ctx)
        return ctx.balance

    @query
    def get_stable_storage_size(self, ctx: Context) -> nat:
        """Return how many bytes the zone's messages, attachments and files take."""
        self.members.require(ctx)
        return self._stored_bytes()

    @query
    def get_logical_stable_storage_size(self, ctx: Context) -> nat:
        """Return the same as `get_stable_storage_size`: nothing is allocated that is not used."""
        self.members.require(ctx)
        return self._stored_bytes()

    def _stored_bytes(self) -> int:
        box = self.mailbox
        return sum(shelf.usage().size_bytes for shelf in (box.messages, box.attachments, box.contents))

    @query
    def get_aggregate_status_v1(self, ctx: Context) -> AggregateStatusV1:
        """Return everything about the zone at once; strangers learn its id, its version, and that they are
        strangers."""
        role = self.members.role_of(ctx, ctx.caller)
        zone_id = self.about.get().zone_id
        if role == NONE:
            nothing = MetaDataInfo(None, None, 0, 0)
            return AggregateStatusV1(
                VERSION, 0, zone_id, 0, 0, 0, [], nothing, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
            )
        box = self.mailbox
        state, attachments = box.messages.usage(), box.attachments.usage()
        return AggregateStatusV1(
            version=VERSION,
            installation_id=self.founded_ns.get(),
            zone_id=zone_id,
            role=role,
            cycles_balance=ctx.balance,
            stable_storage_size=self._stored_bytes(),
            metadata_timestamps=self.metadata.timestamps(),
            metadata_info=self.metadata.info(),
            message_min_id=state.first if state.count else 0,
            message_max_id=state.next - 1,
            message_usage=state.size_bytes,
            message_count=state.count,
            file_system_last_file_id=self.tree.next_file.get() - 1,
            file_system_file_count=len(self.tree.files),
            file_system_directory_count=len(self.tree.directories),
            file_system_max_usage=box.contents.rule.bytes_max,
            attachment_usage=attachments.size_bytes,
            attachment_count=attachments.count,
            attachment_max_usage=box.attachments.rule.bytes_max,
        )

    # cycles

    @update
    def request_topup_if_low(self, ctx: Context) -> TransferCyclesResult | Pending[TransferCyclesResult]:
        """Ask the battery for cycles where the balance is low; return how many came."""
        if not (ctx.is_controller(ctx.caller) or ctx.is_operator(ctx.caller)):
            self.members.require(ctx)
        if ctx.balance >= TOP_UP_BELOW_CYCLES:
            return TransferCyclesResult.ok(0)
        battery = Battery(self.about.get().cycles_requester_id)
        return ctx.call(battery.cycles_manager_transferCycles(TOP_UP_BY_CYCLES), then=self.topped_up)

    @continuation
    def topped_up(self, ctx: Context, outcome: Outcome[TransferCyclesResult]) -> TransferCyclesResult:
        """Pass on what the battery said."""
        if outcome.ok:
            return outcome.value
        return TransferCyclesResult.err(TransferCyclesError.other(outcome.reject_message))

    # what belongs to Diode's chain

    @query
    def oracle_transform_function(self, ctx: Context, args: TransformArgs) -> HttpResponse:
        """Strip the headers of an answer over HTTP."""
        return HttpResponse(args.response.status, [], args.response.body)

    @update
    def update_identity_role(self, ctx: Context, public_key: bytes, identity_contract_address: bytes) -> nat:
        """Answer that roles by an identity contract need a provider for its chain, which the zone has not."""
        if len(identity_contract_address) != bounds.IDENTITY_CONTRACT_SIZE_BYTES:
            size, wanted = len(identity_contract_address), bounds.IDENTITY_CONTRACT_SIZE_BYTES
            refuse(ctx, f"Invalid identity contract size: {size}, not {wanted}")
        refuse(ctx, "this zone asks no chain for roles: an admin adds you, or invites you")
