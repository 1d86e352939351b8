"""Typed reads of a state: canisters, accounts, modules, programs, slots, types, operators.

A `StateView` lies over any ordered reader and keeps what it decoded: a query's lives as long as the query,
a round's as long as the round (whose changes enter it). It writes nothing.
"""

from __future__ import annotations

from cannery.errors import Reject, RejectCode
from cannery.limits import KNOWN_MODULE_COUNT_MAX
from cannery.ports import Program, Programs, StoreReader
from cannery.protocol.principal import Principal
from cannery.replica import keys, records
from cannery.replica.block import ReplicaConfig, decode_config
from cannery.replica.records import AccountRecord, CanisterRecord, ModuleRecord, SubnetRecord


def load_config(reader: StoreReader) -> ReplicaConfig:
    """Read the replica's configuration; before the first `Configure` it is all defaults."""
    stored = reader.get(keys.CONFIG_KEY)
    return ReplicaConfig() if stored is None else decode_config(stored)


def load_program(reader: StoreReader, programs: Programs, module_hash: bytes) -> Program:
    """Give a module's program; raises `Reject` where it is unknown or does not load."""
    program = programs.loaded(module_hash)
    if program is not None:
        return program
    data = reader.get(keys.hashed(keys.MODULE_FILES, module_hash))
    if data is None:
        raise Reject(
            RejectCode.DESTINATION_INVALID,
            f"Module {module_hash.hex()} is not on this node: an operator adds it with `cannery module add`",
        )
    return programs.load(module_hash, data)


class Known:
    """What never changes under its name, kept by a shell over many admissions and queries.

    Rounds do not use it: what they read must not depend on what a process happened to see before.
    """

    __slots__ = ("_config", "_config_bytes", "modules", "slot_maps")

    def __init__(self) -> None:
        self.modules: dict[bytes, ModuleRecord] = {}
        self.slot_maps: dict[bytes, dict[str, bytes]] = {}
        self._config_bytes: bytes | None = None
        self._config = ReplicaConfig()

    def config(self, reader: StoreReader) -> ReplicaConfig:
        """Give the configuration, decoded again only where it is another one; bound what is kept."""
        stored = reader.get(keys.CONFIG_KEY)
        if stored != self._config_bytes:
            self._config = ReplicaConfig() if stored is None else decode_config(stored)
            self._config_bytes = stored
        if len(self.modules) + len(self.slot_maps) > KNOWN_MODULE_COUNT_MAX:
            self.modules.clear()
            self.slot_maps.clear()
        return self._config


class StateView:
    """Typed reads over a reader."""

    __slots__ = ("accounts", "canisters", "config", "modules", "programs", "reader", "slot_maps")

    def __init__(self, reader: StoreReader, programs: Programs, known: Known | None = None) -> None:
        self.reader = reader
        self.programs = programs
        self.canisters: dict[bytes, CanisterRecord | None] = {}
        self.accounts: dict[bytes, AccountRecord | None] = {}
        if known is None:
            self.config = load_config(reader)
            self.modules: dict[bytes, ModuleRecord] = {}
            self.slot_maps: dict[bytes, dict[str, bytes]] = {}
        else:
            self.config = known.config(reader)
            self.modules = known.modules
            self.slot_maps = known.slot_maps

    def canister(self, canister_id: bytes) -> CanisterRecord | None:
        """Give a canister's record; None where there is no such canister."""
        try:
            return self.canisters[canister_id]
        except KeyError:
            data = self.reader.get(keys.owned(keys.CANISTERS, canister_id))
            found = None if data is None else records.CANISTER.decode(data)
            self.canisters[canister_id] = found
            return found

    def account(self, canister_id: bytes) -> AccountRecord | None:
        """Give a canister's account. It is the view's own: copy it before any change."""
        try:
            return self.accounts[canister_id]
        except KeyError:
            data = self.reader.get(keys.owned(keys.ACCOUNTS, canister_id))
            found = None if data is None else records.ACCOUNT.decode(data)
            self.accounts[canister_id] = found
            return found

    def module(self, module_hash: bytes) -> ModuleRecord | None:
        """Give what is known of a module; None where the node does not have it."""
        try:
            return self.modules[module_hash]
        except KeyError:
            data = self.reader.get(keys.hashed(keys.MODULES, module_hash))
            if data is None:
                return None
            return self.modules.setdefault(module_hash, records.MODULE.decode(data))

    def module_file(self, module_hash: bytes) -> bytes | None:
        """Give a module's bytes."""
        return self.reader.get(keys.hashed(keys.MODULE_FILES, module_hash))

    def program(self, module_hash: bytes) -> Program:
        """Give a module's program; raises `Reject` where it is unknown or does not load."""
        return load_program(self.reader, self.programs, module_hash)

    def slots(self, schema_id: bytes) -> dict[str, bytes]:
        """Give the key prefix of each collection under a schema."""
        try:
            return self.slot_maps[schema_id]
        except KeyError:
            data = self.reader.get(keys.hashed(keys.SCHEMAS, schema_id))
            if data is None:
                return {}
            return self.slot_maps.setdefault(schema_id, records.SCHEMA.decode(data).slots)

    def type_bytes(self, number: bytes) -> bytes | None:
        """Give the encoded Candid type with this number."""
        return self.reader.get(keys.hashed(keys.TYPES, number))

    def is_operator(self, principal: bytes) -> bool:
        """Say whether a principal is one of the node's operators."""
        return self.reader.get(keys.hashed(keys.OPERATORS, principal)) is not None

    def is_controller(self, canister_id: bytes, principal: bytes) -> bool:
        """Say whether a principal controls a canister."""
        canister = self.canister(canister_id)
        return canister is not None and principal in canister.controllers

    def subnet(self) -> SubnetRecord:
        """Give the subnet's counters."""
        data = self.reader.get(keys.SUBNET_KEY)
        return SubnetRecord() if data is None else records.SUBNET.decode(data)


def show(principal: bytes) -> str:
    """Give a principal's text for messages to people."""
    return str(Principal(principal))
