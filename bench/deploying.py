"""Bring the bench's canisters to a node, as an operator would."""

from __future__ import annotations

from pathlib import Path

from cannery.cli.building import build_source, read_canister
from cannery.cli.management import Management
from cannery.client import Agent
from cannery.protocol.principal import Principal

HERE = Path(__file__).parent
NO_ARGUMENTS = b"DIDL\x00\x00"


def bring_module(agent: Agent, file: str) -> bytes:
    """Build one of the bench's canisters and bring the module; return its hash."""
    built = build_source(read_canister(str(HERE / file)), frozenset())
    return Management(agent).module_add(built.module)


def install(agent: Agent, module_hash: bytes, arg: bytes = NO_ARGUMENTS) -> Principal:
    """Make a canister that runs a module."""
    management = Management(agent)
    canister = management.create(None, None)
    management.install(canister, "install", module_hash, arg)
    return canister
