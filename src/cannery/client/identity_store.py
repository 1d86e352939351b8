"""Identities and pinned root keys on disk, for one person on one machine.

`~/.config/cannery` (or `CANNERY_HOME`): `identities/NAME.pem`, mode 0600, in the formats that the `icp`
tool reads and writes (PKCS#8 for Ed25519, SEC1 for secp256k1), and `pins.json`, the root key first seen at
each URL. Keys are not encrypted: file modes guard them.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cannery.client.errors import ClientError, Unverified
from cannery.errors import DecodeError
from cannery.limits import PEM_SIZE_CHARS_MAX, PIN_COUNT_MAX
from cannery.protocol.identity import (
    AnonymousIdentity,
    Ed25519Identity,
    Identity,
    IdentityError,
    KeyIdentity,
    Secp256k1Identity,
)
from cannery.protocol.pem import format_pem, parse_pem

ANONYMOUS_NAME = "anonymous"
KEY_TYPES: Mapping[str, type[Ed25519Identity] | type[Secp256k1Identity]] = {
    "ed25519": Ed25519Identity,
    "secp256k1": Secp256k1Identity,
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


class StoreProblem(ClientError):
    """An identity or a pin cannot be read or kept; the text says what to do."""


class NameProblem(StoreProblem, DecodeError):
    """What was given is no name of an identity, or no URL of a node."""


def default_home() -> Path:
    """Give the directory of this person's identities: CANNERY_HOME, else ~/.config/cannery."""
    chosen = os.environ.get("CANNERY_HOME")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "cannery"


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 at once: readers see the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)


def load_pem(path: Path) -> KeyIdentity:
    """Read one PEM file."""
    try:
        with path.open(encoding="utf-8") as file:
            return parse_pem(file.read(PEM_SIZE_CHARS_MAX + 1))
    except OSError as error:
        raise StoreProblem(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise StoreProblem(f"{path} is no PEM file: it is not text") from None
    except IdentityError as error:
        raise StoreProblem(f"{path}: {error}") from None


class IdentityStore:
    """The identities of one person, by name."""

    def __init__(self, home: Path | None = None) -> None:
        self._folder = (home or default_home()) / "identities"

    def path(self, name: str) -> Path:
        """Give the PEM file of a name, whether it is there or not."""
        if not _NAME.fullmatch(name):
            raise NameProblem(
                f"{name!r:.100} is no identity name: use 1 to 64 letters, digits, '_', '.', '-'"
            )
        return self._folder / f"{name}.pem"

    def names(self) -> list[str]:
        """List the names, sorted."""
        return sorted(path.stem for path in self._folder.glob("*.pem") if _NAME.fullmatch(path.stem))

    def create(self, name: str, key_type: str = "ed25519") -> KeyIdentity:
        """Make a new key under a name that is not taken."""
        identity = KEY_TYPES[key_type](secrets.token_bytes(32))
        self._add(name, identity)
        return identity

    def import_pem(self, name: str, source: Path) -> KeyIdentity:
        """Take in the key of a PEM file."""
        identity = load_pem(source)
        self._add(name, identity)
        return identity

    def load(self, name: str) -> Identity:
        """Read an identity; `anonymous` is always there."""
        if name == ANONYMOUS_NAME:
            return AnonymousIdentity()
        path = self.path(name)
        if not path.exists():
            known = ", ".join(self.names()) or "none yet"
            raise StoreProblem(
                f"there is no identity {name!r} (there are: {known}); make it: cannery identity new {name}"
            )
        return load_pem(path)

    def _add(self, name: str, identity: KeyIdentity) -> None:
        path = self.path(name)
        if name == ANONYMOUS_NAME or path.exists():
            raise StoreProblem(f"there is an identity {name!r} already; choose another name or delete {path}")
        write_private(path, format_pem(identity))


def origin_of(url: str) -> str:
    """Reduce a node's URL to scheme, host and port, the name under which its root key is pinned."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise NameProblem(f"{url!r:.100} is no URL of a node: it looks like http://127.0.0.1:4943")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


class PinStore:
    """The root key that each node showed first."""

    def __init__(self, home: Path | None = None) -> None:
        self._path = (home or default_home()) / "pins.json"

    def find(self, url: str) -> bytes | None:
        """Give the root key (DER) pinned for a URL."""
        pinned = self._read().get(origin_of(url))
        return bytes.fromhex(pinned) if pinned else None

    def set(self, url: str, root_key: bytes) -> None:
        """Pin a root key, in place of any other."""
        pins = self._read() | {origin_of(url): root_key.hex()}
        if len(pins) > PIN_COUNT_MAX:
            raise StoreProblem(f"{self._path} holds {PIN_COUNT_MAX} pins already; delete what is not needed")
        write_private(self._path, json.dumps(pins, indent=1, sort_keys=True) + "\n")

    def check(self, url: str, shown: bytes) -> bytes:
        """Pin the key that a node shows, where none is pinned; refuse one that is not the pinned one."""
        pinned = self.find(url)
        if pinned is None:
            self.set(url, shown)
        elif pinned != shown:
            raise Unverified(
                f"the node at {origin_of(url)} shows another root key than at first use "
                f"({shown.hex()[-16:]} instead of {pinned.hex()[-16:]}); "
                f"if it was set up anew on purpose, run: cannery trust --node {origin_of(url)}"
            )
        return shown

    def _read(self) -> dict[str, str]:
        try:
            pins = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise StoreProblem(f"cannot read {self._path}: {error}; delete it to pin anew") from None
        if not isinstance(pins, dict) or not all(_is_pin(url, key) for url, key in pins.items()):
            raise StoreProblem(f"{self._path} is no list of pins; delete it to pin anew")
        return pins


def _is_pin(url: object, key: object) -> bool:
    return isinstance(url, str) and isinstance(key, str) and re.fullmatch(r"([0-9a-f]{2})+", key) is not None
