"""icp-py-core 2.3.1 against a running node: `icp_py_core.py URL ROOT_KEY_HEX CANISTER_ID PEM_FILE`.

Faults of its own, worked around here: certificates are verified against mainnet's root key, whatever key the
agent was given; the module `blst` that it verifies with is not on PyPI (blst.py stands in); the signature of
a query that is rejected never verifies, because the agent hashes another field than the reject's; `time` of
its `system_state` fails on every answer.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path
from time import time_ns

from checks import check, equal, finish, refused
from icp_agent import Agent, Client
from icp_agent.system_state import (
    canister_controllers,
    canister_module_hash,
    subnet_canister_ranges,
    subnet_public_key,
    subnet_public_key_direct,
)
from icp_candid.candid import Types, encode
from icp_canister import Canister
from icp_certificate.certificate import Certificate
from icp_identity import Identity
from icp_principal import Principal

url, root_key_hex, canister_id, pem_file = sys.argv[1:]
root_key = bytes.fromhex(root_key_hex)


def agent_of(identity: Identity) -> Agent:
    """Make an agent that verifies what it can."""
    return Agent(
        identity,
        Client(url),
        nonce_factory=lambda: secrets.token_bytes(16),
        root_key=root_key,
        verify_query_signatures=True,
    )


def believe(key: bytes) -> None:
    """Verify certificates against this root key from now on."""
    Certificate.read_root_key = lambda self: key


def nat64(agent: Agent, method: str) -> int:
    return agent.update(canister_id, method, return_type=[Types.Nat64])[0]["value"]


def text_args(text: str) -> bytes:
    return encode([{"type": Types.Text, "value": text}])


agent = agent_of(Identity())
principal = agent.get_principal().to_str()


@check("mainnet's root key is refused")
def _() -> None:
    refused(lambda: nat64(agent, "increment"), "CertificateVerificationError")


believe(root_key)


@check("query with verified node signature")
def _() -> None:
    answer = agent.query(canister_id, "greet", text_args("Python"), return_type=[Types.Text])
    equal(answer[0]["value"], "Hello, Python!")


@check("update with verified certificate")
def _() -> None:
    before = nat64(agent, "increment")
    equal(nat64(agent, "increment"), before + 1)


for key_type in ("ed25519", "secp256k1", "p256"):

    @check(f"{key_type} identity: query and update")
    def _(key_type: str = key_type) -> None:
        own = agent_of(Identity(type=key_type))
        for ask, method in ((own.query, "whoami"), (own.update, "whoami_update")):
            seen = ask(canister_id, method, return_type=[Types.Principal])[0]["value"]
            equal(str(seen), own.get_principal().to_str())


@check("anonymous query and update")
def _() -> None:
    anonymous = agent_of(Identity(anonymous=True))
    for ask, method in ((anonymous.query, "whoami"), (anonymous.update, "whoami_update")):
        equal(str(ask(canister_id, method, return_type=[Types.Principal])[0]["value"]), "2vxsx-fae")


@check("identity of a cannery PEM file")
def _() -> None:
    own = agent_of(Identity.from_pem(Path(pem_file).read_text()))
    seen = own.update(canister_id, "whoami_update", return_type=[Types.Principal])[0]["value"]
    equal(str(seen), own.get_principal().to_str())


@check("certified reject, trap and unknown method")
def _() -> None:
    refused(lambda: agent.update(canister_id, "refuse", text_args("not today")), "not today")
    refused(lambda: agent.update(canister_id, "fail", text_args("on purpose")), "on purpose")
    refused(lambda: agent.update(canister_id, "absent"), "absent")


@check("reject of a query")
def _() -> None:
    def ask() -> object:
        return agent.query(canister_id, "refuse_query", text_args("no"), verify_query_signatures=False)

    refused(ask, "ReplicaReject")


@check("Candid from the canister's metadata")
def _() -> None:
    canister = Canister(agent, canister_id, auto_fetch_candid=True)
    before = canister.value()[0]["value"]
    equal(canister.increment()[0]["value"], before + 1)
    equal(canister.greet("Candid")[0]["value"], "Hello, Candid!")


@check("read_state")
def _() -> None:
    subnet = Principal.self_authenticating(root_key).to_str()
    certificate = agent.read_state_raw(canister_id, [[b"time"]])
    assert abs(certificate.lookup_time() - time_ns()) < 60_000_000_000
    equal(len(canister_module_hash(agent, canister_id)), 64)
    equal(len(canister_controllers(agent, canister_id)), 1)
    equal(subnet_public_key(agent, canister_id, subnet), root_key_hex)
    equal(subnet_public_key_direct(agent, subnet), root_key_hex)
    assert subnet_canister_ranges(agent, canister_id, subnet)


@check("asynchronous calls")
def _() -> None:
    async def run() -> None:
        calls = [agent.update_async(canister_id, "increment", return_type=[Types.Nat64]) for _ in range(5)]
        counts = [answer[0]["value"] for answer in await asyncio.gather(*calls)]
        equal(len(set(counts)), 5)
        value = await agent.query_async(canister_id, "value", return_type=[Types.Nat64])
        equal(value[0]["value"], max(counts))

    asyncio.run(run())


@check("a repeated call runs once")
def _() -> None:
    own = Agent(agent.identity, Client(url), nonce_factory=lambda: b"the same nonce", root_key=root_key)
    expiry = own.get_expiry_date()
    own.get_expiry_date = lambda: expiry
    equal(nat64(own, "increment"), nat64(own, "increment"))


@check("a tampered root key is refused")
def _() -> None:
    believe(root_key[:-1] + bytes([root_key[-1] ^ 1]))
    refused(lambda: nat64(agent, "increment"), "CertificateVerificationError")


finish()
