"""One process of a node, as its supervisor holds it: started, found ready, stopped in bounded time, never
left behind.

The child's standard input is a pipe whose other end the supervisor keeps: its end tells the child that the
supervisor is gone. Lines on standard error are passed on; the last ones are kept for whoever reports a
failure.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import cannery
from cannery.errors import CanneryError
from cannery.limits import CHILD_ERROR_LINE_COUNT_MAX
from cannery.node.process_life import READY_LINE

_SOURCE: Final = str(Path(cannery.__file__).resolve().parents[1])


class ChildError(CanneryError):
    """A process of the node did not start; the text is what it said."""


class ChildProcess:
    """A running child."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, stdin: int) -> None:
        self.name = name
        self._process = process
        self._stdin = stdin
        self._error_lines: deque[str] = deque(maxlen=CHILD_ERROR_LINE_COUNT_MAX)
        self._errors = asyncio.create_task(self._pass_errors_on())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.returncode

    @property
    def last_words(self) -> str:
        """The last lines that it wrote to standard error."""
        return "; ".join(self._error_lines)

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until it says that it serves. Raises `ChildError`."""
        assert self._process.stdout is not None, "standard output is a pipe"
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout_s)
        except TimeoutError:
            await self.kill()
            raise ChildError(f"the {self.name} was not ready after {timeout_s:g} s") from None
        if line.decode(errors="replace").strip() != READY_LINE:
            await self.kill()
            raise ChildError(self.last_words or f"the {self.name} ended with code {self.exit_code}")

    async def wait(self) -> int:
        """Wait for its end; give the exit code."""
        code = await self._process.wait()
        await self._errors
        self._close_stdin()
        return code

    async def stop(self, timeout_s: float) -> bool:
        """Ask it to stop, and kill it after a while; say whether it stopped by itself."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(self.wait())), timeout_s)
        except TimeoutError:
            await self.kill()
            return False
        return True

    async def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self.wait()

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    async def _pass_errors_on(self) -> None:
        assert self._process.stderr is not None, "standard error is a pipe"
        async for line in self._process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._error_lines.append(text)
            sys.stderr.write(text + "\n")


# For the GNU C library: buffers of megabytes, as replies are, come from memory that the process keeps. By
# default each is mapped and given back anew, and the system clears its pages every time.
_MEMORY: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
    "MALLOC_ARENA_MAX": "2",
}


async def start_child(
    name: str,
    module: str,
    arguments: Sequence[str],
    *,
    descriptors: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
) -> ChildProcess:
    """Start `python -m module` with this process's Python and import path, in a session of its own.

    Its own session keeps the terminal's Ctrl-C away from it: the supervisor alone decides when it stops.
    """
    read_end, write_end = os.pipe()
    environment = {**_MEMORY, **os.environ, **(variables or {})}
    paths = [_SOURCE, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=read_end,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=tuple(descriptors),
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        os.close(write_end)
        raise ChildError(f"cannot start the {name}: {error}") from error
    finally:
        os.close(read_end)
    return ChildProcess(name, process, write_end)
