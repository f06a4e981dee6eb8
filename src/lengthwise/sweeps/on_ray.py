"""Workers of a Ray cluster; the extra `ray`."""

from __future__ import annotations

import os
import secrets
import socket
import time
from typing import Any

from lengthwise.errors import InputError, library
from lengthwise.files import reason
from lengthwise.sweeps.jobs import GRACE, Ended, Job, ended_of, perform_text
from lengthwise.sweeps.local import share_cores

# Starts a cluster of this machine, which goes when the sweep ends.
LOCAL = "local"

# Jobs that wait on the cluster beyond those that run, as a share of its slots: a node that comes has some.
_AHEAD = 0.25

# Seconds between two looks at how many nodes there are.
_LOOK = 2.0

# Seconds in which a cluster must answer.
_KNOCK = 10.0


class RayPool:
    """Tasks of a Ray cluster. A node's or a worker's loss is the loss of its jobs, which go to others.

    The cluster's nodes need this package, and must see the sweep's folder under the same path.

    Args:
        address: of the cluster, as `ray.init` takes it (`auto`, `HOST:6379`, `ray://HOST:10001`), or
            `local`.
        workers: at most so many jobs at once; by default as many as the cluster has cores for.
        threads: cores, and threads, of each.
        gpus: of each; a share, such as 0.25, lets several have one together.

    Raises:
        InputError: where ray is not installed, or there is no cluster.
    """

    def __init__(
        self,
        address: str,
        workers: int | None = None,
        threads: int | None = None,
        gpus: float = 0.0,
    ) -> None:
        self._ray = library("ray", "--ray needs Ray: pip install 'lengthwise[ray]'")
        self.workers, self.threads, self.gpus = workers, threads or 1, gpus
        self._refs: dict[Any, str] = {}
        self._began: dict[str, float] = {}
        self._looked, self._room = -_LOOK, 1
        self._start(address)
        options = {"num_cpus": self.threads, "num_gpus": gpus, "max_retries": 0}
        # Each worker process of Ray does one job after the other.
        self._perform = self._ray.remote(perform_text).options(**options)

    def _start(self, address: str) -> None:
        own: dict[str, Any] = {}
        if address == LOCAL:
            self.workers, self.threads = share_cores(self.workers, self.threads)
            # No file in the home folder, and nothing that another machine could reach.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            own = {"num_cpus": self.workers * self.threads, "_node_ip_address": "127.0.0.1"}
            own["include_dashboard"] = False
        else:
            _knock(address)
        try:
            self._ray.init(address, logging_level="ERROR", log_to_driver=False, **own)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise InputError(f"no Ray cluster at {address!r}: {reason(error)}") from error

    @property
    def slots(self) -> int:
        """As many as the cluster has room for now, and some that wait."""
        if time.monotonic() - self._looked < _LOOK:
            return self._room
        self._looked, self._room = time.monotonic(), self._count()
        return self._room

    def _count(self) -> int:
        has = self._ray.cluster_resources()
        room = int(has.get("CPU", 1) // self.threads)
        if self.gpus:
            room = min(room, int(has.get("GPU", 0) / self.gpus))
        room = max(1, room)
        if self.workers is not None:
            return min(room, self.workers)
        return room + int(room * _AHEAD)

    def submit(self, job: Job) -> None:
        self._refs[self._perform.remote(job.to_json(), self.threads)] = job.name
        self._began[job.name] = time.monotonic()

    def wait(self, seconds: float) -> list[Ended | tuple[str, str]]:
        if not self._refs:
            time.sleep(seconds)
            return []
        refs = list(self._refs)
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=seconds)
        if ready:  # and all others that ended meanwhile
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        return [self._end(ref) for ref in ready]

    def _end(self, ref: Any) -> Ended:
        name = self._refs.pop(ref)
        spent = round(time.monotonic() - self._began.pop(name), 3)
        try:
            return ended_of(self._ray.get(ref))
        except self._ray.exceptions.RayError as error:
            return Ended(name, f"its worker was lost ({type(error).__name__})", spent, lost=True)

    def stop(self) -> None:
        for ref in self._refs:
            # As Ctrl-C there: a training keeps a checkpoint.
            self._ray.cancel(ref, force=False)
        until = time.monotonic() + GRACE
        waiting = list(self._refs)
        while waiting and time.monotonic() < until:
            _, waiting = self._ray.wait(waiting, num_returns=len(waiting), timeout=0.5)
        self._refs.clear()

    def close(self) -> None:
        self._ray.shutdown()


def _knock(address: str) -> None:
    """See that somebody listens at HOST:PORT; Ray itself would try for ever.

    Raises:
        InputError: when nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return  # `auto`, or a name of Ray's own
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {reason(error)}") from error
