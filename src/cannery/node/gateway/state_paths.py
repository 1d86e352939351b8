"""Paths of the state tree: which may be asked for where, and how values become a small certified tree.

IC interface specification, sections "Request: Read state" and "The system state tree". Every answer is a
tree of its own, made of /time and what was asked for; what is not in it is thereby proven absent. Values
under /request_status and /canister come from the subnet; those under /time, /subnet and /canister_ranges
are known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

from cannery.node.gateway.http import Refusal
from cannery.node.gateway.settings import NodeIdentity
from cannery.protocol.certificate import CertificateDelegation, certify_subnet, encode_canister_ranges
from cannery.protocol.principal import Principal
from cannery.protocol.representation import encode_leb128

StatePath: TypeAlias = tuple[bytes, ...]
TreeData: TypeAlias = "dict[bytes, bytes | TreeData]"

STATUS_LEAVES = (b"error_code", b"reject_code", b"reject_message", b"reply", b"status")
CANISTER_LEAVES = (b"canister_creation_timestamp", b"controllers", b"last_install_timestamp", b"module_hash")

_REQUEST_ID_SIZE_BYTES = 32
_SUBNET_DEPTH_MAX = 5


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """What a read needs: `leaves` from the subnet; whether subnet facts and sharded ranges belong in the
    tree.
    """

    leaves: tuple[StatePath, ...]
    request_ids: tuple[bytes, ...]
    with_subnet: bool
    with_ranges: bool


def plan_read(paths: Sequence[StatePath], effective: Principal, *, subnet: bool) -> ReadPlan:
    """Check the paths of a read on this effective canister or subnet; raise `Refusal` (400)."""
    leaves: dict[StatePath, None] = {}
    request_ids: dict[bytes, None] = {}
    roots: set[bytes] = set()
    for path in paths:
        root = path[0] if path else b""
        roots.add(root)
        if root == b"time" and len(path) == 1:
            continue
        if root == b"request_status":
            request_ids[_request_id(path)] = None
            for leaf in _status_leaves(path):
                leaves[leaf] = None
        elif root == b"canister" and not subnet:
            leaves[_canister_leaf(path, effective)] = None
        elif not _is_public(path, subnet):
            raise _forbidden(path, subnet)
    if len(request_ids) > 1:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "all /request_status paths of one read must name the same request id"
        )
    return ReadPlan(tuple(leaves), tuple(request_ids), b"subnet" in roots, b"canister_ranges" in roots)


def _is_public(path: StatePath, subnet: bool) -> bool:
    root = path[0] if path else b""
    if root == b"subnet":
        return len(path) <= _SUBNET_DEPTH_MAX and (subnet or len(path) < 3 or path[2] != b"metrics")
    if root == b"canister_ranges":
        return subnet and len(path) <= 3
    return root == b"api_boundary_nodes" and len(path) <= 3


def _request_id(path: StatePath) -> bytes:
    if len(path) not in (2, 3) or len(path[1]) != _REQUEST_ID_SIZE_BYTES:
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            "a path /request_status/ID needs a request id of 32 bytes and at most one field",
        )
    return path[1]


def _status_leaves(path: StatePath) -> Iterable[StatePath]:
    if len(path) == 2:
        return [(*path, leaf) for leaf in STATUS_LEAVES]
    if path[2] not in STATUS_LEAVES:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, f"/request_status/ID has {_names(STATUS_LEAVES)}, not {_label(path[2])}"
        )
    return [path]


def _canister_leaf(path: StatePath, effective: Principal) -> StatePath:
    if len(path) < 3:
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            f"name one field of the canister: {_names(CANISTER_LEAVES)} or metadata/NAME",
        )
    if path[1] != effective.raw:
        raise Refusal(
            HTTPStatus.BAD_REQUEST,
            f"/canister paths must be about the canister in the URL, {effective}, not about another",
        )
    if len(path) == 3 and path[2] in CANISTER_LEAVES:
        return path
    if len(path) == 4 and path[2] == b"metadata":
        _check_metadata_name(path[3])
        return path
    raise Refusal(
        HTTPStatus.BAD_REQUEST,
        f"/canister/ID has {_names(CANISTER_LEAVES)} and metadata/NAME, not {_label(path[2])}",
    )


def _check_metadata_name(name: bytes) -> None:
    try:
        name.decode()
    except UnicodeDecodeError:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "the NAME in /canister/ID/metadata/NAME must be UTF-8"
        ) from None


def _forbidden(path: StatePath, subnet: bool) -> Refusal:
    where = "subnet" if subnet else "canister"
    return Refusal(
        HTTPStatus.BAD_REQUEST,
        f"the path /{'/'.join(_label(label) for label in path[:6])} cannot be asked for at a {where} URL",
    )


def _names(labels: Iterable[bytes]) -> str:
    return ", ".join(label.decode() for label in labels)


def _label(label: bytes) -> str:
    shown = label[:64]
    return shown.decode() if shown.isascii() and shown.decode().isprintable() else shown.hex()


class SubnetFacts:
    """The parts of the tree that are the same for every read: keys and canister ranges of all subnets.

    `subnet_id` is the principal of subnet `number`, `delegation` the root's word for it, if it is another.
    """

    __slots__ = ("_by_subnet", "delegation", "key", "node_id", "root_key_der", "sharded", "subnet_id")

    def __init__(self, identity: NodeIdentity, number: int = 0, time_ns: int = 0) -> None:
        node_public_key = identity.node_key.public_key_der
        self.root_key_der = identity.root_key.public_key_der
        self.key = identity.keys[number]
        self.subnet_id = Principal.self_authenticating(self.key.public_key_der)
        self.node_id = identity.node_key.principal
        self.delegation: CertificateDelegation | None = None
        if number:
            own_ranges = (identity.canister_ranges[number],)
            self.delegation = certify_subnet(identity.root_key, self.key, own_ranges, time_ns)
        self._by_subnet: TreeData = {}
        self.sharded: TreeData = {}
        for key, found in zip(identity.keys, identity.canister_ranges, strict=False):
            ranges = encode_canister_ranges((found,))
            subnet_id = Principal.self_authenticating(key.public_key_der).raw
            self._by_subnet[subnet_id] = {
                b"canister_ranges": ranges,
                b"node": {self.node_id.raw: {b"public_key": node_public_key}},
                b"public_key": key.public_key_der,
                b"type": identity.subnet_type.encode(),
            }
            self.sharded[subnet_id] = {found[0].raw: ranges}

    def tree_data(self, plan: ReadPlan, time_ns: int, values: Sequence[bytes | None]) -> TreeData:
        """Lay out the tree of a read: what the plan asks for, with the subnet's values for its leaves."""
        data: TreeData = {b"time": encode_leb128(time_ns)}
        if plan.with_subnet:
            data[b"subnet"] = self._by_subnet
        if plan.with_ranges:
            data[b"canister_ranges"] = self.sharded
        for path, value in zip(plan.leaves, values, strict=True):
            if value is not None:
                _put(data, path, value)
        return data


def _put(data: TreeData, path: StatePath, value: bytes) -> None:
    for label in path[:-1]:
        child = data.setdefault(label, {})
        assert isinstance(child, dict), "no leaf stands above another leaf"
        data = child
    data[path[-1]] = value
