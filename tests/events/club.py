"""A canister whose members may have its events: members by key, a secret topic for its controllers."""

from __future__ import annotations

from cannery import (
    Canister,
    Context,
    EventRequest,
    Principal,
    StableMap,
    StableSet,
    init,
    nat32,
    nat64,
    query,
    update,
)


class Club(Canister):
    members = StableSet(Principal)
    notes = StableMap(nat64, str)

    @init
    def set_up(self, ctx: Context) -> None:
        self.members.add(ctx.caller)

    @update
    def join(self, ctx: Context, who: Principal) -> None:
        self.members.add(who)

    @update
    def leave(self, ctx: Context, who: Principal) -> None:
        self.members.discard(who)

    @update
    def say(self, ctx: Context, topic: str, text: str) -> nat64:
        number = ctx.emit(topic, text.encode())
        self.notes[number] = text
        return number

    @update
    def say_many(self, ctx: Context, topic: str, count: nat32, size: nat32) -> None:
        for _ in range(count):
            ctx.emit(topic, bytes(size))

    @update
    def leave_and_say(self, ctx: Context, who: Principal, text: str) -> nat64:
        self.members.discard(who)
        return ctx.emit("chat", text.encode())

    @update
    def say_and_break(self, ctx: Context) -> None:
        ctx.emit("chat", b"never said")
        ctx.trap("broken")

    @query
    def events_allowed(self, ctx: Context, request: EventRequest) -> list[str]:
        if "open" in request.topics:
            return ["open"]
        if ctx.caller not in self.members:
            return []
        return [topic for topic in request.topics if topic != "secret" or ctx.is_controller(ctx.caller)]
