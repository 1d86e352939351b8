"""Which module is meant, and in which mode it is installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cannery.cdk.module_file import parse_module
from cannery.cli.building import build_file, read_module
from cannery.cli.problem import Problem
from cannery.client.agent import Agent
from cannery.errors import DecodeError
from cannery.protocol.principal import Principal

_HASH = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class ModuleChoice:
    """A module by its hash; its bytes and interface where it comes from a file."""

    hash: bytes
    module: bytes | None
    did: str | None

    @classmethod
    def read(cls, text: str) -> ModuleChoice:
        """Read `FILE.py`, `FILE.wasm` or a hash."""
        if _HASH.fullmatch(text) and not Path(text).exists():
            return cls(bytes.fromhex(text), None, None)
        if text.endswith((".wasm", ".wasm.gz")):
            module = read_module(text)
            try:
                return cls(sha256(module).digest(), module, parse_module(module).did)
            except DecodeError as error:
                raise Problem(f"{text}: {error}") from None
        built = build_file(text)
        return cls(built.hash, built.module, built.did)


def choose_mode(agent: Agent, canister_id: Principal, mode: str) -> str:
    """Decide what `auto` means for a canister as it is now."""
    if mode != "auto":
        return mode
    return "install" if agent.module_hash(canister_id) is None else "upgrade"
