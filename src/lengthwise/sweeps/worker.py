"""A worker of this machine: `python -m lengthwise.sweeps.worker SECONDS`.

It reads jobs, a line each, does one after the other, and writes what became of each as a line of JSON. It
ends at the end of its input; if that comes while it works, the process that started it has died, and it
keeps a checkpoint and ends, too, within so many seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

# Seconds between two words of a job about how far it is.
_EVERY = 0.5


def main() -> None:
    """Work until there is nothing more to do."""
    # What libraries print must not mix with our lines.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    jobs: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(jobs, busy), daemon=True).start()

    def tell(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=lines, flush=True)

    try:
        import torch

        from lengthwise.sweeps.jobs import Job, perform

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or "1"))
        while (text := jobs.get()) is not None:
            busy.set()
            job, last = Job.from_json(text), 0.0

            def say(words: str, name: str = job.name) -> None:
                nonlocal last
                if time.monotonic() - last >= _EVERY:
                    last = time.monotonic()
                    tell({"name": name, "says": words})

            ended = perform(job, say)
            busy.clear()
            tell(asdict(ended))
    except (KeyboardInterrupt, BrokenPipeError):
        # Nothing more is to be flushed to a reader that may have gone.
        with contextlib.suppress(OSError):
            lines.flush()
        os._exit(1)


def _read(jobs: queue.Queue[str | None], busy: threading.Event) -> None:
    """Pass jobs on; at their end see to it that the process ends."""
    for line in sys.stdin:
        jobs.put(line)
    jobs.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(float(sys.argv[1]))  # it is given so long to end by itself
        os._exit(1)


if __name__ == "__main__":
    main()
