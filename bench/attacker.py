"""A canister that attacks another one: it calls a guarded method again and again."""

from cannery import Canister, Context, Principal, nat32, update
from cannery.cdk.calls import Call


class Attacker(Canister):
    """Attack when told."""

    @update
    def attack(self, ctx: Context, victim: Principal, count: nat32) -> None:
        """Send calls that the victim refuses, and never look at the answers."""
        for _ in range(count):
            ctx.notify(Call.raw(victim, "guarded", b"DIDL\x00\x00"))
