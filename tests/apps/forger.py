"""A canister that pretends to be a user's: it delivers to a mailbox without being known to the index."""

from cannery import Canister, Context, Pending, Principal, Service, StableCell, init, method, nat64, update
from cannery.apps.users.types import Body, Envelope, Receipt


class Mailbox(Service):
    """What the forger calls."""

    @method
    def receive(self, batch: list[tuple[nat64, nat64, Envelope]]) -> list[Receipt]: ...


class Forger(Canister):
    """Deliver what nobody sent."""

    target = StableCell(Principal, Principal.anonymous())

    @init
    def start(self, ctx: Context, target: Principal) -> None:
        """Remember whom to deceive."""
        self.target.set(target)

    @update
    def forge(self, ctx: Context, text: str) -> Pending[list[Receipt]]:
        """Deliver a message in another's name."""
        envelope = Envelope(b"forged", ctx.now_ns, Body.text(text))
        return ctx.call(Mailbox(self.target.get()).receive([(ctx.now_ns, 0, envelope)]))
