"""The peers: systems that do the same job, installed by the bench into a folder of its own, never part of the
product. One that cannot be installed here is left out, and says so.

Restate: a virtual object per user, through its Python SDK; a handler that reads and writes its state, each
call durable. Synapse: a message sent into a room. Both as they come, with their own durable stores, on this
machine; requests are made beforehand and sent by the same generator as ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import traffic
from bench.servers import free_port, wait_for_port

HOME = Path(__file__).parent / "peers_installed"
INSTALL_S_MAX = 600
OBJECTS = 64
VALUE = "x" * 200
RESTATE_APP = """
import restate

bench = restate.VirtualObject("Bench")


@bench.handler()
async def put(ctx: restate.ObjectContext, value: str) -> int:
    count = (await ctx.get("count") or 0) + 1
    ctx.set("count", count)
    ctx.set("value", value)
    return count


app = restate.app([bench])
"""
SYNAPSE_SETTINGS = """
server_name: "bench.test"
report_stats: false
enable_registration: true
enable_registration_without_verification: true
trusted_key_servers: []
pid_file: "{folder}/pid"
media_store_path: "{folder}/media"
signing_key_path: "{folder}/signing.key"
log_config: "{folder}/log.yaml"
macaroon_secret_key: "bench"
form_secret: "bench"
database: {{name: sqlite3, args: {{database: "{folder}/homeserver.db"}}}}
listeners:
  - port: {port}
    bind_addresses: ["127.0.0.1"]
    type: http
    tls: false
    resources: [{{names: [client], compress: false}}]
rc_message: {{per_second: 1000000, burst_count: 1000000}}
rc_registration: {{per_second: 1000000, burst_count: 1000000}}
rc_login:
  address: {{per_second: 1000000, burst_count: 1000000}}
  account: {{per_second: 1000000, burst_count: 1000000}}
rc_room_creation: {{per_second: 1000000, burst_count: 1000000}}
"""
SYNAPSE_LOG = "version: 1\nroot: {level: ERROR, handlers: []}\n"


class PeerMissing(Exception):
    """A peer that cannot be had here; the text says why."""


def measure_restate(folder: Path, plan: Sequence[tuple[int, int]]) -> list[traffic.Result]:
    """Send (connections, count) calls to virtual objects. Raises `PeerMissing`."""
    python = _python("restate", "restate-sdk", "hypercorn")
    server = _npm("@restatedev/restate-server", "restate-server")
    (folder / "restate_app.py").write_text(RESTATE_APP)
    ingress, admin, service, node = (free_port() for _ in range(4))
    (folder / "restate.toml").write_text(
        f'disable-telemetry = true\nlisten-mode = "tcp"\nbind-address = "127.0.0.1:{node}"\n'
        f'[ingress]\nbind-address = "127.0.0.1:{ingress}"\n[admin]\nbind-address = "127.0.0.1:{admin}"\n'
    )
    hypercorn = [str(python), "-m", "hypercorn", "restate_app:app", "-b", f"127.0.0.1:{service}"]
    restate = [str(server), "-c", "restate.toml", "--no-logo", "--base-dir", str(folder / "restate")]
    with _running(hypercorn, folder, service), _running(restate, folder, admin):
        wait_for_port_quietly(ingress)
        _post(f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://127.0.0.1:{service}"})
        body = json.dumps(VALUE).encode()
        return [
            traffic.send(
                ingress,
                [_request("POST", f"/Bench/{i % OBJECTS}/put", body) for i in range(count)],
                connections,
            )
            for connections, count in plan
        ]


def measure_synapse(folder: Path, plan: Sequence[tuple[int, int]]) -> list[traffic.Result]:
    """Send (connections, count) messages into rooms, one user each. Raises `PeerMissing`."""
    python = _python("synapse", "matrix-synapse")
    port = free_port()
    config = folder / "homeserver.yaml"
    config.write_text(SYNAPSE_SETTINGS.format(folder=folder, port=port))
    (folder / "log.yaml").write_text(SYNAPSE_LOG)
    homeserver = [str(python), "-m", "synapse.app.homeserver", "-c", str(config)]
    subprocess.run([*homeserver, "--generate-keys"], check=True, capture_output=True, cwd=folder)
    with _running(homeserver, folder, port):
        base = f"http://127.0.0.1:{port}/_matrix/client/v3"
        rooms = [_synapse_room(base, number) for number in range(OBJECTS)]
        body = json.dumps({"msgtype": "m.text", "body": VALUE}).encode()
        results = []
        for connections, count in plan:
            requests = []
            for i in range(count):
                token, room = rooms[i % OBJECTS]
                path = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/{connections}-{i}"
                requests.append(_request("PUT", path, body, f"Authorization: Bearer {token}\r\n"))
            results.append(traffic.send(port, requests, connections))
        return results


def _synapse_room(base: str, number: int) -> tuple[str, str]:
    account = {"username": f"user{number}", "password": "bench-only", "auth": {"type": "m.login.dummy"}}
    token = _post(f"{base}/register", account)["access_token"]
    room = _post(f"{base}/createRoom", {"preset": "private_chat"}, token)["room_id"]
    return token, room.replace("!", "%21").replace(":", "%3A")


def _request(method: str, path: str, body: bytes, more: str = "") -> traffic.Signed:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{more}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return traffic.Signed(head.encode() + body, b"")


def _post(url: str, content: object, token: str = "") -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(content).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    assert isinstance(found, dict)
    return found


def _python(name: str, *packages: str) -> Path:
    """Give the Python of an environment with these packages, made the first time."""
    environment = HOME / name
    python = environment / "bin" / "python"
    done = environment / "installed"
    if not done.exists():
        shutil.rmtree(environment, ignore_errors=True)
        _install([sys.executable, "-m", "venv", str(environment)], name)
        _install([str(python), "-m", "pip", "install", "-q", *packages], name)
        done.touch()
    return python


def _npm(package: str, program: str) -> Path:
    """Give a program of an npm package, installed the first time."""
    if shutil.which("npm") is None:
        raise PeerMissing(f"{package}: npm is not here")
    path = HOME / "npm" / "node_modules" / ".bin" / program
    if not path.exists():
        (HOME / "npm").mkdir(parents=True, exist_ok=True)
        _install(
            ["npm", "install", "--prefix", str(HOME / "npm"), "--no-fund", "--no-audit", package], package
        )
    return path


def _install(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=INSTALL_S_MAX, check=False, text=True)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{what}: {error}") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()
        raise PeerMissing(f"{what} cannot be installed here: {last[-1] if last else done.returncode}")


@contextlib.contextmanager
def _running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": ""}
        )
        try:
            wait_for_port(port, process)
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_port_quietly(port: int) -> None:
    """Wait until a peer's port answers HTTP, whatever it says."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise PeerMissing(f"nothing answers on port {port}")
