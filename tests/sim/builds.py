"""Builds of the users app's mailbox for the simulated world: good ones, and ones that fail for some users.

Each keeps the state of the first, so that any can follow any. Whom a bad build fails for is decided by its
owner's principal: the same users in every run of a seed.
"""

from __future__ import annotations

from cannery import (
    Context,
    Pending,
    Principal,
    Service,
    StableMap,
    health,
    inspect_message,
    method,
    nat64,
    post_upgrade,
    query,
    role,
    same_fleet,
    update,
)
from cannery.apps.users.types import Envelope, Receipt
from cannery.apps.users.user import User
from cannery.cdk.inbox import Batch

HELPERS = "helper"


class Greeting(Service):
    """What members of a fleet say to each other."""

    @method
    def hello(self) -> nat64: ...


class SimUser(User):
    """A mailbox with doors for members of its fleet, and for those whom the fleet trusts."""

    greeted = StableMap(Principal, nat64)

    @inspect_message
    def inspect(self, ctx: Context) -> bool:
        """Let the owner in, and helpers."""
        return ctx.caller == self.me.get().owner or ctx.has_role(HELPERS)

    @update
    def greet(self, ctx: Context, to: Principal) -> Pending[nat64]:
        """Say hello to another canister."""
        self._owner_only(ctx)
        return ctx.call(Greeting(to).hello())

    @update(only=same_fleet)
    def hello(self, ctx: Context) -> nat64:
        """Note who of the fleet says hello."""
        count = self.greeted.get(ctx.caller, 0) + 1
        self.greeted.put(ctx.caller, count)
        return count

    @query
    def greeters(self, ctx: Context) -> list[Principal]:
        """List who said hello."""
        return list(self.greeted)

    @update(only=role(HELPERS))
    def tend(self, ctx: Context) -> nat64:
        """Do what helpers may."""
        return ctx.fleet_config_version

    @query(only=role(HELPERS))
    def look_in(self, ctx: Context) -> nat64:
        """Show what helpers may see."""
        return ctx.fleet_config_version

    def _is_unlucky(self) -> bool:
        return self.me.get().owner.raw[0] % 3 == 0


class SimUserNext(SimUser):
    """The next version, with more to keep."""

    notes = StableMap(nat64, str)

    @query
    def generation(self, ctx: Context) -> nat64:
        """Tell it from the first."""
        return 2


class SimUserTraps(SimUser):
    """An upgrade that fails for some."""

    @post_upgrade
    def move(self, ctx: Context) -> None:
        """Write, then trap for some users."""
        self.greeted.put(ctx.id, 1_000)
        if self._is_unlucky():
            ctx.trap("this build cannot move in here")
        self.greeted.delete(ctx.id)


class SimUserSpoils(SimUser):
    """An upgrade that ruins what some have stored, and whose health check tells."""

    @post_upgrade
    def move(self, ctx: Context) -> None:
        """Drop the mailbox of some users."""
        if self._is_unlucky():
            self.mailbox.prune(before=1_000)
            self.sent.clear()
            self.peers.clear()
            self.greeted.put(ctx.id, 1_000)

    @health
    def well(self, ctx: Context) -> bool:
        """Say whether the state is what it should be."""
        return ctx.id not in self.greeted


class SimUserHangs(SimUser):
    """An upgrade that never ends for some: the simulator stops it, as the watch does."""

    @post_upgrade
    def move(self, ctx: Context) -> None:
        """Write, then go on for ever for some users."""
        if self._is_unlucky():
            self.mailbox.prune(before=1_000)
            while True:
                self.me.get()


class SimUserDeaf(SimUser):
    """A build that upgrades well and then takes no mail for some users."""

    @update
    def receive(self, ctx: Context, batch: Batch[Envelope]) -> list[Receipt] | Pending[list[Receipt]]:
        """Trap for some users."""
        if self._is_unlucky():
            ctx.trap("this build is deaf")
        return super().receive(ctx, batch)


class SimUserLast(SimUserNext):
    """The good release that the fleet ends on."""

    @query
    def generation(self, ctx: Context) -> nat64:
        """Tell it from the others."""
        return 9
