"""Another Python process, told and heard in lines: what every pool of workers is made of."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any


class Child:
    """A process that runs a module, and the thread that hears it.

    Args:
        arguments: the module, and what it is given.
        environment: its variables.
        lines: where its lines go, each beside the child; None is the last, when it has ended.
    """

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        lines: queue.Queue[tuple[Any, str | None]],
    ) -> None:
        self.lines = lines
        self.process = subprocess.Popen(
            # Nothing is imported from the working folder that was not before.
            [sys.executable, "-P", "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            # Ctrl-C is for the process that was started; it sees to the end of its workers.
            start_new_session=True,
        )
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def write(self, line: str) -> None:
        """Tell it a line, which ends in a line feed."""
        assert self.process.stdin is not None
        # One that has died is heard of by the end of its lines.
        with contextlib.suppress(OSError):
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # else it died amid a line
                self.lines.put((self, line))
        self.lines.put((self, None))

    def end(self, patience: float = 0.0) -> str:
        """End it: by the end of its input within so many seconds, else by force. Return how it ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if patience:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.thread.join()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        code = self.process.returncode
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
