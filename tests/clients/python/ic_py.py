"""ic-py 1.0.1 against a running node, a smoke test: `ic_py.py URL ROOT_KEY_HEX CANISTER_ID PEM_FILE`.

Faults of its own, worked around here: it verifies nothing; it sends no nonce, so that two equal calls within
a second are one call, and no check counts on more; it looks at no answer of a call, and polls.
"""

from __future__ import annotations

import sys
from pathlib import Path

from checks import check, equal, finish, refused
from ic.agent import Agent
from ic.candid import Types, encode
from ic.canister import Canister
from ic.client import Client
from ic.identity import Identity
from ic.system_state import canister_controllers, canister_module_hash
from ic.system_state import time as node_time

url, root_key_hex, canister_id, pem_file = sys.argv[1:]
CANDID = """service : {
  increment : () -> (nat64);
  value : () -> (nat64) query;
  greet : (name : text) -> (text) query;
}"""
agent = Agent(Identity(), Client(url))


def text_args(text: str) -> bytes:
    return encode([{"type": Types.Text, "value": text}])


@check("query")
def _() -> None:
    answer = agent.query_raw(canister_id, "greet", text_args("Python"), [Types.Text])
    equal(answer[0]["value"], "Hello, Python!")


@check("update")
def _() -> None:
    before = agent.query_raw(canister_id, "value", encode([]), [Types.Nat64])[0]["value"]
    after = agent.update_raw(canister_id, "increment", encode([]), [Types.Nat64], timeout=20)[0]["value"]
    assert after > before


class CountingClient(Client):
    """The client, which counts how often it polls."""

    polls = 0

    def read_state(self, canister_id: str, data: bytes) -> bytes:
        self.polls += 1
        return super().read_state(canister_id, data)


@check("an update is answered by the first poll")
def _() -> None:
    client = CountingClient(url)
    own = Agent(Identity(), client)
    own.update_raw(
        canister_id, "echo", encode([{"type": Types.Vec(Types.Nat8), "value": [1, 2]}]), timeout=20
    )
    equal(client.polls, 1)


for key_type in ("ed25519", "secp256k1"):

    @check(f"{key_type} identity")
    def _(key_type: str = key_type) -> None:
        own = Agent(Identity(type=key_type), Client(url))
        seen = own.query_raw(canister_id, "whoami", encode([]), [Types.Principal])[0]["value"]
        equal(str(seen), str(own.get_principal()))
        seen = own.update_raw(canister_id, "whoami_update", encode([]), [Types.Principal], timeout=20)[0][
            "value"
        ]
        equal(str(seen), str(own.get_principal()))


@check("anonymous query")
def _() -> None:
    own = Agent(Identity(anonymous=True), Client(url))
    seen = own.query_raw(canister_id, "whoami", encode([]), [Types.Principal])[0]["value"]
    equal(str(seen), "2vxsx-fae")


@check("identity of a cannery PEM file")
def _() -> None:
    own = Agent(Identity.from_pem(Path(pem_file).read_text()), Client(url))
    seen = own.query_raw(canister_id, "whoami", encode([]), [Types.Principal])[0]["value"]
    equal(str(seen), str(own.get_principal()))


@check("a canister by its Candid interface")
def _() -> None:
    canister = Canister(agent, canister_id, CANDID)
    equal(canister.greet("Candid")[0], "Hello, Candid!")


@check("reject, and trap")
def _() -> None:
    for method, text in (("refuse", "not today"), ("fail", "on purpose")):
        args = text_args(text)
        refused(lambda m=method, a=args: agent.update_raw(canister_id, m, a, timeout=20), text)


@check("a call that is not let in is told to whoever polls")
def _() -> None:
    refused(lambda: agent.update_raw(canister_id, "absent", encode([]), timeout=20), "absent")


@check("read_state")
def _() -> None:
    assert node_time(agent, canister_id) > 1_700_000_000_000_000_000
    equal(len(canister_module_hash(agent, canister_id)), 64)
    equal(len(canister_controllers(agent, canister_id)), 1)


finish()
