"""A canister of the simulated world that asks the world outside, and notes what it was told and how often."""

from __future__ import annotations

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    StableMap,
    continuation,
    nat64,
    query,
    record,
    update,
)
from cannery.cdk.management import Management
from cannery.cdk.outcalls import HttpResult, TransformArgs, http_get, http_post, transform_by

OPEN = "open"


@record
class Told:
    """What became of a question: `answer` is "open" until it is known; `count` says how often it was."""

    tag: nat64
    answer: str
    count: nat64


class Asker(Canister):
    """Ask by GET or POST, with and without a transform."""

    told = StableMap(nat64, Told)

    @update
    def ask(self, ctx: Context, tag: nat64, how: str) -> Pending[str]:
        """Ask for a tag; answer with what came of it."""
        url = f"https://rates.example.org/{tag}"
        args = http_get(url)
        if how == "post":
            args = http_post(url, b"%d" % tag)
        elif how in ("shout", "fall"):
            args = http_get(url, transform=transform_by(ctx.id, how))
        self.told.put(tag, Told(tag, OPEN, 0))
        return ctx.call(
            Management().http_request(args), then=self.answered, saved=tag, cycles=ctx.balance // 8
        )

    @continuation
    def answered(self, ctx: Context, outcome: Outcome[HttpResult], saved: nat64) -> str:
        """Note the answer, or why there is none."""
        answer = f"rejected {outcome.reject_code}"
        if outcome.ok:
            answer = f"{outcome.value.status} {outcome.value.body.decode()}"
        self.told.put(saved, Told(saved, answer, self.told[saved].count + 1))
        return answer

    @query
    def shout(self, ctx: Context, args: TransformArgs) -> HttpResult:
        """Transform an answer."""
        return HttpResult(args.response.status, [], args.response.body.upper())

    @query
    def fall(self, ctx: Context, args: TransformArgs) -> HttpResult:
        """Trap in a transform."""
        ctx.trap("cannot read it")

    @query
    def all(self, ctx: Context) -> list[Told]:
        """Return everything."""
        return list(self.told.values())
