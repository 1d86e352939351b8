"""Users of a version that had no fleet: its index comes to know them, and they get the present release."""

from __future__ import annotations

from hashlib import sha256

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    StableMap,
    continuation,
    encode_args,
    update,
)
from cannery.apps.users.types import Profile, UserInit, Who
from cannery.apps.users.user import User
from cannery.apps.users.user_index import TAKEN_IN_COUNT, UserIndex
from cannery.cdk.management import CreateInstalledArgs, CreateInstalledResult, Management
from cannery.fleet.rollout_types import KindVersion, RolloutArgs
from cannery.testing import Node

USER_COUNT = TAKEN_IN_COUNT + 40


class FormerIndex(Canister):
    """The state that an index of users kept before there were fleets."""

    users = StableMap(Principal, Profile, counted=True)
    names = StableMap(str, Principal)

    @update
    def make(self, ctx: Context, module_hash: bytes, name: str) -> Pending[None]:
        arg = encode_args(UserInit(ctx.caller, ctx.id, name))
        call = Management().cannery_create_installed(CreateInstalledArgs(module_hash, arg, [ctx.id]))
        return ctx.call(call, then=self.made, saved=Profile(ctx.caller, ctx.id, name, ctx.now_ns, False))

    @continuation
    def made(self, ctx: Context, outcome: Outcome[CreateInstalledResult], saved: Profile) -> None:
        canister = outcome.value.canister_id
        self.users.put(
            saved.owner, Profile(saved.owner, canister, saved.username, saved.registered_ns, False)
        )
        self.names.put(saved.username, saved.owner)


def test_users_of_a_former_index_join_its_fleet_and_are_upgraded() -> None:
    with Node() as node:
        module = node.build(User)
        node.manage("cannery_module_add", module)
        former = node.install(FormerIndex)
        for number in range(USER_COUNT):
            former.as_(f"user {number}").make.submit(sha256(module).digest(), f"user_{number}")
        node.run()
        index = node.upgrade(former, UserIndex).as_(node.operator)
        node.advance(seconds=1)
        assert index.fleet_status().children == index.count() == USER_COUNT
        assert (
            index.fleet_release_add("user", 1, sha256(module).digest(), "the first with a fleet").tag == "ok"
        )
        started = index.fleet_rollout_start(RolloutArgs([KindVersion("user", 1)], 500))
        node.advance(seconds=5)
        rollout = index.fleet_rollout(started.ok)
        assert (rollout.state.tag, rollout.counts.unchanged) == ("done", USER_COUNT)
        ann = index.lookup(Who.username("user_7"))
        assert ann.owner == node.principal("user 7")
        assert node.actor(ann.canister, User).get_version().version == 1
        assert node.actor(ann.canister, User).get_version().fleet == index.id
