"""Stop requests, collected so that what is under way can finish."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

# Besides Ctrl-C: being asked to end, and, where there is such a signal, a terminal that is closed.
STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@contextlib.contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect Ctrl-C and `STOP_SIGNALS`, so that a step and its checkpoint can finish.

    A second request stops at once, but for that of a closed terminal, which shells pass on twice. A signal
    that is ignored (`nohup`) stays so. Outside the main thread signals are left alone.
    """
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        if received and number != getattr(signal, "SIGHUP", None):
            raise KeyboardInterrupt
        received.append(number)

    kinds = [k for k in (signal.SIGINT, *STOP_SIGNALS) if signal.getsignal(k) != signal.SIG_IGN]
    with _handling(kinds, receive):
        yield received


def uninterrupted() -> contextlib.AbstractContextManager[None]:
    """Ignore Ctrl-C and `STOP_SIGNALS` while the last words are said.

    Launchers ask the others to end as soon as one process has gone, which may be amid what these have to
    say about it. Outside the main thread signals are left alone.
    """
    return _handling((signal.SIGINT, *STOP_SIGNALS), signal.SIG_IGN)


@contextlib.contextmanager
def _handling(kinds: Iterable[int], handler: Any) -> Iterator[None]:
    """For a while, signals go to a handler; not outside the main thread, which alone may say so."""
    in_main = threading.current_thread() is threading.main_thread()
    before = {kind: signal.signal(kind, handler) for kind in kinds if in_main}
    try:
        yield
    finally:
        for kind, other in before.items():
            signal.signal(kind, other)
