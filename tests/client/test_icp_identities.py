"""Key files go over to the `icp` tool and come from it, with the same principal on both sides."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cannery.client.identity_store import IdentityStore

ICP = (
    Path(__file__).parent.parent
    / "clients"
    / "js"
    / "node_modules"
    / "@icp-sdk"
    / "icp-cli-linux-x64"
    / "bin"
    / "icp"
)
pytestmark = pytest.mark.skipif(not ICP.exists(), reason="the icp tool comes with 'make test'")


def icp(home: Path, *arguments: str) -> str:
    environment = {"HOME": str(home), "ICP_HOME": str(home / "icp"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [ICP, *arguments], env=environment, cwd=home, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("key_type", ["ed25519", "secp256k1"])
def test_our_keys_are_theirs(tmp_path: Path, key_type: str) -> None:
    store = IdentityStore(tmp_path)
    made = store.create("ann", key_type)
    icp(tmp_path, "identity", "import", "ann", "--storage", "plaintext", "--from-pem", str(store.path("ann")))
    assert icp(tmp_path, "identity", "principal", "--identity", "ann") == str(made.principal)


def test_their_keys_are_ours(tmp_path: Path) -> None:
    icp(tmp_path, "identity", "new", "bob", "--storage", "plaintext")
    pem = tmp_path / "bob.pem"
    pem.write_text(icp(tmp_path, "identity", "export", "bob") + "\n")
    taken = IdentityStore(tmp_path).import_pem("bob", pem)
    assert icp(tmp_path, "identity", "principal", "--identity", "bob") == str(taken.principal)
