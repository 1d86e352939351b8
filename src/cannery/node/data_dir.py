"""A node's data directory: its format, its lock, its keys, and where everything stands in it.

    format                  the text "cannery 1"
    lock                    held by the running node; holds its process id
    cannery.toml            the operator's settings, if any (see `config`)
    operator.pem            the first operator's identity (mode 0600)
    keys/root.bls           the first subnet's BLS seed, which gives the others' (mode 0600)
    keys/node.pem           the node's Ed25519 key (mode 0600)
    subnet-0/store/         the store
    subnet-0/running        what runs now
    subnet-0/condemned      what is not run again
    subnet-0/checkpoint/    a copy of the store, by hard links, while a backup reads it
    watch/alarms            how far alarms were told
    watch/canary            how the canary fared
    spool/                  large arguments and replies on their way
    run/subnet-0.sock       the subnet's socket
    run/gateways/           what gateways count and share while the node runs
    subnet-1/ ...           the same of each further subnet

It starts nothing and reads no settings.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from cannery.errors import CanneryError, DecodeError
from cannery.limits import SUBNET_COUNT_MAX
from cannery.protocol.bls import BlsKey
from cannery.protocol.certificate import CertificateDelegation, certify_subnet
from cannery.protocol.identity import Ed25519Identity, KeyIdentity
from cannery.protocol.pem import format_pem, parse_pem
from cannery.protocol.principal import Principal
from cannery.replica.block import Route
from cannery.replica.keys import canister_id
from cannery.replica.places import make_route

FORMAT: Final = "cannery 1"
_SOCKET_PATH_BYTES_MAX: Final = 100
_SEED_BYTES: Final = 32
_OWN_NAMES: Final = {
    "lock",
    "cannery.toml",
    "keys",
    "subnet-0",
    "spool",
    "run",
    "watch",
    "operator.pem",
    "format.new",
}


class DataDirError(CanneryError):
    """The data directory cannot be used; the text says what to do."""


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The keys of a node: its first subnet signs certificates with `root`, each further one with a key of its
    own, which `root` certifies; it signs query answers with `node`.
    """

    root: BlsKey
    node: Ed25519Identity
    operator: KeyIdentity
    further: tuple[BlsKey, ...] = ()

    @property
    def subnets(self) -> tuple[BlsKey, ...]:
        """The subnets' keys by number."""
        return (self.root, *self.further)

    @property
    def routes(self) -> tuple[Route, ...]:
        """The registry: which canister ids are on which subnet."""
        return tuple(make_route(number, subnet_id_of(key).raw) for number, key in enumerate(self.subnets))


def subnet_id_of(key: BlsKey) -> Principal:
    """Give the principal of the subnet that signs with this key."""
    return Principal.self_authenticating(key.public_key_der)


def delegation_of(keys: NodeKeys, number: int, time_ns: int) -> CertificateDelegation | None:
    """Give the root's word for a subnet's key; None for the first subnet, whose key is the root's."""
    if number == 0:
        return None
    return certify_subnet(keys.root, keys.subnets[number], (range_of(number),), time_ns)


def range_of(subnet: int) -> tuple[Principal, Principal]:
    """Give the first and the last canister id of a subnet."""
    route = make_route(subnet, b"")
    return Principal(canister_id(route.first)), Principal(canister_id(route.last))


@dataclass(frozen=True, slots=True)
class DataDir:
    """Paths in a data directory, as one of its subnets sees it."""

    path: Path
    subnet: int = 0

    def of(self, subnet: int) -> DataDir:
        """Give the paths of another subnet."""
        return DataDir(self.path, subnet)

    @property
    def subnet_count(self) -> int:
        """How many subnets have data here; one at least."""
        count = 1
        while count < SUBNET_COUNT_MAX and self.of(count).own.exists():
            count += 1
        return count

    @property
    def own(self) -> Path:
        """Everything of the subnet alone."""
        return self.path / f"subnet-{self.subnet}"

    @property
    def store(self) -> Path:
        return self.own / "store"

    @property
    def running(self) -> Path:
        return self.own / "running"

    @property
    def condemned(self) -> Path:
        return self.own / "condemned"

    @property
    def checkpoint(self) -> Path:
        """Where a copy of the store stands while a backup reads it."""
        return self.own / "checkpoint"

    @property
    def backup_lock(self) -> Path:
        """Held by the backup that uses `checkpoint`."""
        return self.own / "checkpoint.lock"

    @property
    def alarms(self) -> Path:
        """What the alarms' watcher remembers."""
        return self.path / "watch" / "alarms"

    @property
    def canary(self) -> Path:
        """How the canary's probes went."""
        return self.path / "watch" / "canary"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    @property
    def shared(self) -> Path:
        """What gateways count and share while the node runs."""
        return self.path / "run" / "gateways"

    @property
    def operator(self) -> Path:
        return self.path / "operator.pem"

    @property
    def socket(self) -> str:
        """The subnet's socket; in the temporary directory where the path is too long for a Unix socket."""
        path = self.path / "run" / f"subnet-{self.subnet}.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
            return str(path)
        name = sha256(os.fsencode(self.path)).hexdigest()[:16]
        if self.subnet:
            name += f"-{self.subnet}"
        return str(Path(tempfile.gettempdir()) / f"cannery-{os.getuid()}-{name}.sock")


class DataLock:
    """The lock of a data directory, held until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a+")  # noqa: SIM115  (open as long as the lock is held)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read(32).strip()
            self._file.close()
            raise DataDirError(
                f"{path.parent} is in use by another node (pid {owner or 'unknown'}):"
                " stop that one first, or choose another directory with --data"
            ) from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def open_data_dir(path: Path | str) -> tuple[DataDir, DataLock]:
    """Lock a data directory and check its format; a new or empty one is set up with fresh keys."""
    found = DataDir(Path(path).absolute())
    try:
        found.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_format(found.path)
        lock = DataLock(found.path / "lock")
        _set_up(found)
    except OSError as error:
        raise DataDirError(f"cannot use {found.path}: {error.strerror or error}") from error
    return found, lock


def set_subnets(found: DataDir, wanted: int) -> int:
    """Make room for as many subnets as are wanted (0: as many as there are) and give their number.

    Raises `DataDirError` where there are more: canisters live on each of them.
    """
    count = found.subnet_count
    if wanted and wanted < count:
        raise DataDirError(
            f"{found.path} has {count} subnets, and canisters live on each: start it with --subnets {count}, "
            "or without the option"
        )
    for number in range(count, wanted):
        found.of(number).own.mkdir(mode=0o700)
    return max(count, wanted)


def find_data_dir(path: Path | str) -> DataDir:
    """Give a data directory that a node has set up; nothing is made. Raises `DataDirError`."""
    found = DataDir(Path(path).absolute())
    try:
        if not (found.path / "format").exists():
            raise DataDirError(f"{found.path} is no data directory of a node: name it with --data")
        _check_format(found.path)
    except OSError as error:
        raise DataDirError(f"cannot use {found.path}: {error.strerror or error}") from error
    return found


def load_keys(path: Path | str) -> NodeKeys:
    """Read the keys of a data directory."""
    folder = Path(path)
    try:
        seed = bytes.fromhex((folder / "keys" / "root.bls").read_text().strip())
        node = parse_pem((folder / "keys" / "node.pem").read_text())
        operator = parse_pem((folder / "operator.pem").read_text())
        root = BlsKey.from_seed(seed)
        count = DataDir(folder).subnet_count
        further = tuple(BlsKey.from_seed(_further_seed(seed, number)) for number in range(1, count))
    except (OSError, ValueError, DecodeError) as error:
        raise DataDirError(f"cannot read the keys in {folder}: {error}") from error
    if not isinstance(node, Ed25519Identity):
        raise DataDirError(f"{folder / 'keys' / 'node.pem'} is not an Ed25519 key")
    return NodeKeys(root, node, operator, further)


def _further_seed(seed: bytes, number: int) -> bytes:
    """Make the seed of a further subnet's key: whoever has the first one's keeps them all."""
    return sha256(b"\x0ecannery-subnet" + seed + number.to_bytes(4, "big")).digest()


def _check_format(path: Path) -> None:
    file = path / "format"
    if file.exists():
        text = file.read_text(errors="replace").strip()
        if text != FORMAT:
            raise DataDirError(
                f"{path} holds data of {text[:40]!r}, and this version reads {FORMAT!r}:"
                " start the version that wrote it, or choose another directory with --data"
            )
        return
    # A set-up that was cut short leaves some of its own files, and no store yet.
    strangers = sorted({entry.name for entry in path.iterdir()} - _OWN_NAMES)
    if not strangers and DataDir(path).store.exists():
        strangers = ["subnet-0"]
    if strangers:
        raise DataDirError(
            f"{path} is no data directory of a node (it holds {strangers[0]!r}):"
            " choose an empty directory with --data"
        )


def _set_up(found: DataDir) -> None:
    for folder in ("keys", "subnet-0", "spool", "run", "watch"):
        (found.path / folder).mkdir(mode=0o700, exist_ok=True)
    _create_secret(found.path / "keys" / "root.bls", secrets.token_hex(_SEED_BYTES) + "\n")
    _create_secret(found.path / "keys" / "node.pem", format_pem(Ed25519Identity(secrets.token_bytes(32))))
    _create_secret(found.operator, format_pem(Ed25519Identity(secrets.token_bytes(32))))
    # The format is written last: a directory whose set-up was cut short has no format, and no data.
    _create_secret(found.path / "format", FORMAT + "\n")


def _create_secret(path: Path, text: str) -> None:
    """Write a file that only its owner reads, whole or not at all; one that is there stays."""
    if path.exists():
        return
    partial = path.with_name(path.name + ".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
