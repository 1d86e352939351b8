"""The index of users: registers people, gives each a canister of their own, and tells who is where.

A registration reserves the name, then lets the fleet make the canister, so that a failure leaves neither a
reserved name nor a canister. Names are unique whatever their case. The fleet's index is part of this one:
operators bring releases, roll them out, fund and watch by its methods (`fleet_...`).
"""

from __future__ import annotations

from dataclasses import replace

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    StableMap,
    continuation,
    encode_args,
    inspect_message,
    nat32,
    nat64,
    post_upgrade,
    query,
    record,
    timer,
    update,
)
from cannery.cdk.management import FleetConfigureArgs, FleetConfigureResult, FleetRole, Management
from cannery.fleet.directory import NO_VERSION
from cannery.fleet.directory_types import Child
from cannery.fleet.index import Index
from cannery.fleet.rights import NO_CONTROLLER

from .types import (
    PAGE_COUNT_MAX,
    SELF_CUSTODY_ROLE,
    USERNAME_LENGTH_MAX,
    USERNAME_LENGTH_MIN,
    IndexSettings,
    Profile,
    ProfilePage,
    RegisterResult,
    UserInit,
    Who,
)

KIND = "user"
MINUTE_NS = 60_000_000_000
REGISTERING_NS_MAX = 10 * MINUTE_NS
TAKEN_IN_COUNT = 500
REGISTRATIONS_PER_MINUTE = 600
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


@record
class Window:
    """The minute in which registrations are counted, and how many it has seen."""

    start_ns: nat64
    count: nat32


@record
class Reservation:
    """A name that is kept for somebody whose canister is being made."""

    username: str
    at_ns: nat64


@record
class Registration:
    """A registration under way: what its continuation needs."""

    owner: Principal
    username: str


@record
class Taken:
    """How far the users of an earlier version are known to the fleet."""

    after: Principal | None


@record
class HandOver:
    """A hand-over of control that waits for the canister to be let in without the fleet's trust."""

    canister: Principal
    controllers: list[Principal]


@record
class Custody:
    """A hand-over of control under way."""

    canister: Principal


def _self_custody(canister: Principal, *, is_given: bool) -> FleetConfigureArgs:
    role = [FleetRole(SELF_CUSTODY_ROLE, [canister])]
    return FleetConfigureArgs(role, [], []) if is_given else FleetConfigureArgs([], role, [])


def username_fault(username: str) -> str | None:
    """Say what is wrong with a username, or None."""
    if not USERNAME_LENGTH_MIN <= len(username) <= USERNAME_LENGTH_MAX:
        span = f"{USERNAME_LENGTH_MIN} to {USERNAME_LENGTH_MAX}"
        return f"a username has {span} characters, this one {len(username)}"
    if not LETTERS.issuperset(username):
        return "a username is made of the letters a to z, digits and _"
    return None


class UserIndex(Canister):
    """Register users and find them."""

    fleet = Index()
    settings = StableCell(IndexSettings, IndexSettings(REGISTRATIONS_PER_MINUTE))
    users = StableMap(Principal, Profile, counted=True)
    names = StableMap(str, Principal)
    registering = StableMap(Principal, Reservation)
    window = StableCell(Window, Window(0, 0))

    @inspect_message
    def inspect(self, ctx: Context) -> bool:
        """Let nobody in without an identity; the operator's methods check further."""
        return ctx.caller != Principal.anonymous()

    @post_upgrade
    def take_in(self, ctx: Context) -> None:
        """See that the fleet knows the users of a version that had none."""
        if self.users and not self.fleet.directory.count_all():
            ctx.timer_set(self.take_in_more, after_s=0, saved=Taken(None))

    @timer
    def take_in_more(self, ctx: Context, saved: Taken) -> None:
        """Tell the fleet of some users, and go on with the others."""
        page = self.users.page(after=saved.after, limit=TAKEN_IN_COUNT)
        directory = self.fleet.directory
        for owner, profile in page.items:
            if directory.find(KIND, owner) is None and directory.get(profile.canister) is None:
                directory.add(ctx, profile.canister, KIND, owner, NO_VERSION)
                if profile.self_custody:
                    self.fleet.departures.handed_over(ctx, profile.canister)
        if page.next is not None:
            ctx.timer_set(self.take_in_more, after_s=0, saved=Taken(page.next))
        self.fleet.census.keep(ctx)

    @update
    def configure(self, ctx: Context, settings: IndexSettings) -> None:
        """Set how many may register in a minute; operators only."""
        self._operators_only(ctx)
        self.settings.set(settings)

    @query
    def get_settings(self, ctx: Context) -> IndexSettings:
        """Return the settings."""
        return self.settings.get()

    @update
    def register(self, ctx: Context, username: str) -> RegisterResult | Pending[RegisterResult]:
        """Give the caller a canister and a name; again: return what they have."""
        caller = ctx.caller
        if caller == Principal.anonymous():
            ctx.reject("register with an identity of your own: the anonymous principal cannot own a mailbox")
        profile = self.users.get(caller)
        known = None if profile is None else self._placed(profile)
        if known is not None:
            return RegisterResult.ok(known)
        if profile is not None:
            self._forget_gone(profile)
        refusal = self._refusal(ctx, username)
        if refusal is not None:
            return refusal
        self.names.put(username.lower(), caller)
        self.registering.put(caller, Reservation(username, ctx.now_ns))
        try:
            return self.fleet.create(
                ctx,
                KIND,
                caller,
                encode_args(UserInit(caller, ctx.id, username)),
                then=self.created,
                saved=Registration(caller, username),
            )
        except LookupError as error:
            return self._give_up(caller, username, str(error))
        except Reject as reject:
            return self._give_up(caller, username, reject.message)

    def _forget_gone(self, profile: Profile) -> None:
        """Release the name of a user whose canister was deleted."""
        self.users.delete(profile.owner)
        self.names.delete(profile.username.lower())

    def _is_registering(self, ctx: Context, owner: Principal) -> bool:
        """Say whether somebody's registration is under way; release what one reserved that was cut off."""
        reservation = self.registering.get(owner)
        if reservation is not None and ctx.now_ns - reservation.at_ns >= REGISTERING_NS_MAX:
            self.registering.delete(owner)
            self.names.delete(reservation.username.lower())
            return False
        return reservation is not None

    def _is_taken(self, ctx: Context, username: str) -> bool:
        """Say whether a name is somebody's; release it where they have no canister any more, or where their
        registration was cut off.
        """
        name = username.lower()
        holder = self.names.get(name)
        if holder is None:
            return False
        profile = self.users.get(holder)
        if profile is not None and self._placed(profile) is not None:
            return True
        if profile is not None:
            self._forget_gone(profile)
        self._is_registering(ctx, holder)
        return self.names.get(name) is not None

    def _refusal(self, ctx: Context, username: str) -> RegisterResult | None:
        is_registering = self._is_registering(ctx, ctx.caller)
        is_taken = self._is_taken(ctx, username)
        fault = username_fault(username)
        if fault is not None:
            return RegisterResult.username_invalid(fault)
        if is_registering or self.fleet.is_making(ctx, KIND, ctx.caller):
            return RegisterResult.in_progress("your registration is under way; ask again in a moment")
        if is_taken:
            return RegisterResult.username_taken(f"the name {username} is taken; choose another")
        return self._throttle(ctx)

    def _throttle(self, ctx: Context) -> RegisterResult | None:
        window = self.window.get()
        if ctx.now_ns - window.start_ns >= MINUTE_NS:
            window = Window(ctx.now_ns, 0)
        if window.count >= self.settings.get().registrations_per_minute:
            wait_s = (window.start_ns + MINUTE_NS - ctx.now_ns) // 1_000_000_000 + 1
            return RegisterResult.rate_limited(
                f"too many registrations at the moment; try again in {wait_s} s"
            )
        self.window.set(Window(window.start_ns, window.count + 1))
        return None

    @continuation
    def created(self, ctx: Context, outcome: Outcome[Child], saved: Registration) -> RegisterResult:
        """Keep the new user, or release the name where no canister could be made."""
        name = saved.username.lower()
        self.registering.delete(saved.owner)
        if not outcome.ok:
            ctx.log(f"registration of {saved.username} failed: {outcome.reject_message}")
            return self._give_up(saved.owner, saved.username, outcome.reject_message)
        holder = self.names.get(name)
        if holder is not None and holder != saved.owner:
            # It took so long that somebody else was given the name.
            self.fleet.departures.begin(ctx, outcome.value.canister, recycle=True)
            return RegisterResult.username_taken(f"the name {saved.username} is taken; choose another")
        if holder is None:
            self.names.put(name, saved.owner)
        profile = Profile(saved.owner, outcome.value.canister, saved.username, ctx.now_ns, False)
        self.users.put(saved.owner, profile)
        return RegisterResult.ok(profile)

    def _give_up(self, owner: Principal, username: str, reason: str) -> RegisterResult:
        """Release the name of a registration that failed, unless another one has succeeded meanwhile."""
        self.registering.delete(owner)
        name = username.lower()
        if self.names.get(name) == owner and self._profile(owner) is None:
            self.names.delete(name)
        return RegisterResult.failed(f"no canister could be created: {reason}")

    @query
    def lookup(self, ctx: Context, who: Who) -> Profile | None:
        """Find a user by name (whatever its case), by principal or by canister."""
        return self._find(who)

    @query
    def lookup_many(self, ctx: Context, who: list[Who]) -> list[Profile | None]:
        """Find many users at once, in the order asked; at most 500."""
        if len(who) > PAGE_COUNT_MAX:
            ctx.reject(f"ask for {PAGE_COUNT_MAX} users at the most")
        return [self._find(one) for one in who]

    def _find(self, who: Who) -> Profile | None:
        owner: Principal | None
        if who.tag == "username":
            owner = self.names.get(who.username.lower())
        elif who.tag == "canister":
            child = self.fleet.directory.get(who.canister)
            owner = None if child is None else child.owner
        else:
            owner = who.owner
        return None if owner is None else self._profile(owner)

    def _profile(self, owner: Principal) -> Profile | None:
        """Return a user with the canister that the fleet has for them now; None where it has none."""
        profile = self.users.get(owner)
        return None if profile is None else self._placed(profile)

    def _placed(self, profile: Profile) -> Profile | None:
        child = self.fleet.directory.find(KIND, profile.owner)
        if child is None:
            return None
        is_own = child.state.tag == "in_custody"
        if profile.canister == child.canister and profile.self_custody == is_own:
            return profile
        return replace(profile, canister=child.canister, self_custody=is_own)

    @query
    def page(self, ctx: Context, after: str | None, limit: nat32) -> ProfilePage:
        """List users in the order of their names, from the one after `after`; `limit` is 1 or more."""
        if not limit:
            ctx.reject(f"ask for 1 to {PAGE_COUNT_MAX} users")
        page = self.names.page(after=after, limit=min(limit, PAGE_COUNT_MAX))
        profiles = [self._profile(owner) for _, owner in page.items]
        return ProfilePage([profile for profile in profiles if profile is not None], page.next)

    @query
    def count(self, ctx: Context) -> nat64:
        """Return how many users are registered."""
        directory = self.fleet.directory
        return directory.count(KIND, "active") + directory.count(KIND, "in_custody")

    @update
    def take_custody(self, ctx: Context, controllers: list[Principal]) -> Pending[None]:
        """Hand control of the caller's canister to `controllers`; the index loses its powers for good."""
        profile = self._profile(ctx.caller)
        if profile is None:
            ctx.reject("you are not registered here")
        if not controllers:
            ctx.reject("name at least one controller, or nobody could ever upgrade or fund your canister")
        if self.fleet.directory.replacing.get(profile.canister) is not None:
            ctx.reject("your canister is moving to another id: ask again in a moment")
        # First, so that no message is refused while control changes hands.
        call = Management().cannery_fleet_configure(_self_custody(profile.canister, is_given=True))
        return ctx.call(call, then=self.let_in, saved=HandOver(profile.canister, controllers))

    @continuation
    def let_in(self, ctx: Context, outcome: Outcome[FleetConfigureResult], saved: HandOver) -> Pending[None]:
        """Hand control over, now that the canister may deliver to the others all the same."""
        if not outcome.ok:
            ctx.reject(f"control could not be handed over: {outcome.reject_message}")
        child = self.fleet.directory.get(saved.canister)
        is_moving = self.fleet.directory.replacing.get(saved.canister) is not None
        if is_moving or child is None or child.state.tag == "replaced":
            # Its letters are in another canister by now, or will be: control of this one is worth nothing.
            self._shut_out(ctx, saved.canister)
            ctx.reject("your canister is moving to another id: ask again in a moment")
        call = self.fleet.departures.hand_over_call(ctx, saved.canister, saved.controllers)
        return ctx.call(call, then=self.handed_over, saved=Custody(saved.canister))

    @continuation
    def handed_over(self, ctx: Context, outcome: Outcome[None], saved: Custody) -> None:
        """Note that a user controls their own canister."""
        if not outcome.ok:
            if outcome.error_code != NO_CONTROLLER:
                self._shut_out(ctx, saved.canister)
            ctx.reject(f"control could not be handed over: {outcome.reject_message}")
        self.fleet.departures.handed_over(ctx, saved.canister)

    def _shut_out(self, ctx: Context, canister: Principal) -> None:
        """Take back what let a canister deliver without the fleet's trust."""
        change = _self_custody(canister, is_given=False)
        ctx.notify(Management().cannery_fleet_configure(change))

    def _operators_only(self, ctx: Context) -> None:
        if not (ctx.is_operator(ctx.caller) or ctx.is_controller(ctx.caller)):
            ctx.reject("only an operator of the node or a controller of this index may do this")
