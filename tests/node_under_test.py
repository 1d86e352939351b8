"""A real node for tests: what `cannery start` runs, on a free port, in a directory of its own."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cannery.client.agent import Agent
from cannery.client.identity_store import load_pem
from cannery.protocol.identity import Identity
from cannery.protocol.principal import Principal
from tests.waiting import NEVER_S

ROOT = Path(__file__).resolve().parent.parent
READY_S_MAX = NEVER_S
STOP_S_MAX = NEVER_S
PROGRAM = "import sys; from cannery.cli.main import main; main()"


@dataclass
class NodeUnderTest:
    """A node that was started; `stop`, `kill` and `start` again as a test needs it."""

    data: Path
    home: Path
    port: int = 0
    url: str = ""
    root_key: bytes = b""
    canisters: dict[str, Principal] | None = None
    process: subprocess.Popen[bytes] | None = None
    settings: str = ""
    options: tuple[str, ...] = ()
    ready_s_max: float = READY_S_MAX
    # What runs before the program (a tracer), and the program: `cannery`, or one that changes a part first.
    prefix: tuple[str, ...] = ()
    program: str = PROGRAM

    @property
    def operator(self) -> Identity:
        """The operator identity that the first start made."""
        return load_pem(self.data / "operator.pem")

    def agent(self, identity: Identity | None = None) -> Agent:
        """Give an agent that knows this node's root key."""
        return Agent(self.url, identity, root_key=self.root_key, patience_s=30)

    def environment(self) -> dict[str, str]:
        """Give the variables under which the command line talks to this node."""
        paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "CANNERY_HOME": str(self.home),
            "CANNERY_URL": self.url,
            "CANNERY_DATA": str(self.data),
        }

    def start(self) -> None:
        """Start the processes and wait until they serve; the port stays the same once it is known."""
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
        if self.settings:
            self.data.mkdir(parents=True, exist_ok=True)
            (self.data / "cannery.toml").write_text(self.settings)
        command = ["start", "--data", str(self.data), "--port", str(self.port), "--json", *self.options]
        log = (self.data.parent / f"{self.data.name}.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-c", self.program, *command],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        ready = json.loads(self._first_line(self.process, Path(log.name)))
        self.url, self.root_key = ready["url"], bytes.fromhex(ready["root_key"])
        self.port = int(self.url.rpartition(":")[2])
        self.canisters = {name: Principal.parse(text) for name, text in ready["canisters"].items()}

    def _first_line(self, process: subprocess.Popen[bytes], log: Path) -> bytes:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            # Ready to read means a line, or the end of a process that could not start.
            line = process.stdout.readline() if selector.select(self.ready_s_max) else b""
        if not line:
            process.kill()
            process.wait()
            raise AssertionError(f"the node did not start:\n{log.read_text()[-4000:]}")
        return line

    def stop(self) -> int:
        """Ask the node to stop; give its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the node did not stop within {STOP_S_MAX} s") from None

    def kill(self) -> None:
        """End every process of the node at once, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Stop what still runs."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()
