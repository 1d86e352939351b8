"""Usage errors and exit codes, without a node."""

from __future__ import annotations

import pytest

from cannery.cli.main import exit_code_of
from cannery.cli.problem import Problem
from cannery.client.errors import Expired, Refused, Rejected, Unreachable, Unverified
from cannery.client.identity_store import NameProblem, StoreProblem
from cannery.errors import CanneryError, DecodeError
from tests.conftest import Cli
from tests.waiting import NEVER_S


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Rejected(4, "no", certified=True), 1),
        (Refused(400, "bad"), 1),
        (StoreProblem("none"), 1),
        (NameProblem("no name"), 2),
        (Problem("none", 1), 1),
        (Problem("wrong"), 2),
        (DecodeError("bad"), 2),
        (Unreachable("gone"), 3),
        (Unverified("forged"), 4),
        (Expired("late", request_id=b"", ran=None), 5),
        (CanneryError("other"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: CanneryError, code: int) -> None:
    assert exit_code_of(error) == code


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("send",), "Missing argument 'USERNAME'. See: cannery send --help"),
        (("send", "bob", "hi", "--nonsense"), "No such option: --nonsense"),
        (("start", "--port", "70000"), "--port"),
        (("start", "--port", "many"), "--port"),
        (("canister", "nonsense"), "No such command 'nonsense'"),
        (("canister", "top-up", "x", "0"), "CYCLES"),
        (("identity", "new", "../escape"), "no identity name"),
        (("identity", "new", "x", "--type", "rsa"), "--type"),
        (("identity", "import", "nothing.pem"), "nothing.pem"),
        (("identity", "principal", "nobody"), "cannery identity new nobody"),
        (("build", "nothing.py"), "no such file"),
    ],
)
def test_wrong_usage_is_one_line(cli: Cli, arguments: tuple[str, ...], complaint: str) -> None:
    done = cli(*arguments)
    assert done.code in (1, 2)
    assert complaint in done.error
    assert done.out == ""


def test_no_command_shows_the_help(cli: Cli) -> None:
    for arguments in ((), ("canister",)):
        done = cli(*arguments)
        assert done.code == 2
        assert "Usage: cannery" in done.out
        assert done.err == ""


def test_identities_from_the_command_line(cli: Cli, tmp_path: object) -> None:
    made = cli("identity", "new", "ann", "--json").json
    also = cli("identity", "new", "bob", "--type", "secp256k1").out.strip()
    assert cli("identity", "principal", "ann").out.strip() == made["principal"]  # type: ignore[index]
    assert cli("identity", "list", "--json").json == [
        {"name": "ann", "principal": made["principal"]},  # type: ignore[index]
        {"name": "bob", "principal": also},
    ]
    copied = cli("identity", "import", made["file"], "--name", "copy", "--json").json  # type: ignore[index]
    assert copied["principal"] == made["principal"]  # type: ignore[index]
    assert "already" in cli("identity", "new", "ann").error
    assert cli("identity", "list").out.splitlines()[1] == f"bob   {also}"


def test_output_to_a_closed_pipe_is_quiet(cli: Cli) -> None:
    import subprocess
    import sys

    from tests.node_under_test import PROGRAM, ROOT

    done = subprocess.run(
        f"'{sys.executable}' -c '{PROGRAM}' identity list | true",
        shell=True,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=NEVER_S,
    )
    assert done.stderr == ""
