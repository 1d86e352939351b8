"""A real node in processes of its own, for tests: started through the supervisor, spoken to over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from resource import RLIMIT_NOFILE, setrlimit

import psutil

import cannery
from cannery.candid.codec import decoder, encoder
from cannery.client.agent import Agent
from cannery.node.data_dir import load_keys
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.management.dispatch import METHODS
from cannery.replica.management.types import InstallCodeArgs, InstallMode, ProvisionalCreateArgs
from tests.waiting import NEVER_S, wait_until

RUNNER = """
import asyncio, sys
from cannery.errors import CanneryError
from cannery.node.supervisor import run_node
async def ready(node): print("ready", node.url, flush=True)
try:
    asyncio.run(run_node(sys.argv[1], None, int(sys.argv[2]), ready, lambda text: print(text, flush=True)))
except CanneryError as error:
    sys.exit(f"error: {error}")
print("stopped", flush=True)
"""


class ProcessNode:
    """A running supervisor with its children."""

    def __init__(
        self,
        data: Path,
        port: int = 0,
        *,
        first_on_path: str | None = None,
        open_files: tuple[int, int] | None = None,
    ) -> None:
        """Start it. `first_on_path`: a folder whose `sitecustomize` changes the processes, for mutations.
        `open_files`: the soft and the hard limit on them.
        """
        self.data = data
        paths = [*filter(None, [first_on_path]), str(Path(cannery.__file__).parents[1])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, str(data), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=None if open_files is None else partial(setrlimit, RLIMIT_NOFILE, open_files),
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready "):
            _, errors = self.process.communicate()
            raise AssertionError(f"the node did not start: {line}{errors}")
        self.url = line.split()[1]
        self.agent = Agent(self.url, load_keys(data).operator)

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def child(self, part: str) -> psutil.Process:
        """Give the child whose command line has a part."""
        return next(child for child in self.supervisor.children() if part in " ".join(child.cmdline()))

    def report(self) -> str:
        """Read the next line that the supervisor reports."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def manage(self, method: str, *args: object, effective: Principal | None = None) -> object:
        """Call the management canister as the operator."""
        found = METHODS[method]
        reply = self.agent.call(MANAGEMENT, method, encoder(found.args)(args), effective=effective)
        values = decoder(found.results)(reply)
        return values[0] if values else None

    def install(self, module: bytes) -> Principal:
        """Create a canister of a module."""
        created = self.manage("provisional_create_canister_with_cycles", ProvisionalCreateArgs())
        canister_id: Principal = created.canister_id  # type: ignore[attr-defined]
        args = InstallCodeArgs(InstallMode.install(), canister_id, module, b"DIDL\x00\x00")
        self.manage("install_code", args, effective=canister_id)
        return canister_id

    def stop(self, signal_number: int = signal.SIGTERM) -> tuple[int, str]:
        """Stop it; give the exit code and what it wrote to standard error."""
        self.agent.close()
        self.process.send_signal(signal_number)
        _, errors = self.process.communicate(timeout=NEVER_S)
        return self.process.returncode, errors

    def kill(self) -> None:
        """Kill the supervisor without warning, and wait until nothing of the node is left."""
        self.agent.close()
        children = self.supervisor.children(recursive=True)
        self.process.kill()
        self.process.communicate(timeout=NEVER_S)
        _, alive = psutil.wait_procs(children, timeout=NEVER_S)
        assert not alive, f"left behind: {alive}"


def wait_until_gone(process: psutil.Process) -> None:
    """Wait for the end of somebody else's child."""
    wait_until(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
        f"{process} is still there",
    )
