"""A worker: `python -m lengthwise.workers.process`.

It reads what it is for, then shares, a line of JSON each, and answers each with a line. It ends at the end
of its input, at once, even amid a share: the process that started it has gone then.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

from lengthwise.errors import InputError


def find(name: str) -> Callable[..., Any]:
    """The function that another process is to call, by the name `MODULE:FUNCTION`.

    Raises:
        InputError: for one that is not of this package.
    """
    module, _, function = name.partition(":")
    if module.split(".")[0] != "lengthwise" or not function.isidentifier():
        raise InputError(f"{name!r} names no work of lengthwise")
    return getattr(import_module(module), function)


def main() -> None:
    """Answer until there is nothing more to answer."""
    # What libraries print must not mix with our lines.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    given: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_read, args=(given,), daemon=True).start()
    try:
        first = given.get()
        answer = find(first["begin"])(first["values"])
        while True:
            share = given.get()
            said = {"share": share["share"], "answer": answer(share["values"])}
            print(json.dumps(said), file=lines, flush=True)
    except Exception as error:
        # Bad input is said as it would be without workers; of anything else also where.
        bad = type(error).__module__.startswith("lengthwise.")
        said = {"error": str(error) if bad else traceback.format_exc(), "bad_input": bad}
        print(json.dumps(said), file=lines, flush=True)


def _read(given: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        given.put(json.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()
