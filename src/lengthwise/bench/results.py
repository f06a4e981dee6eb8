"""What benchmarks measure, and the harness that all of them share."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lengthwise.settings.config import InputError
from lengthwise.version import __version__


@dataclass(frozen=True)
class Result:
    """One number.

    Attributes:
        benchmark: its name in `BENCHMARKS`.
        case: what was measured.
        value: the number, a median unless `note` says otherwise.
        unit: its unit; `x` for a ratio, where more than 1 means that ours is faster.
        note: how it was measured, where that is not plain.
    """

    benchmark: str
    case: str
    value: float
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """The results of one machine on one day."""

    machine: dict[str, Any]
    results: list[Result]

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints: `machine`, and `results` as a list of objects."""
        return {"machine": self.machine, "results": [asdict(result) for result in self.results]}

    def table(self) -> str:
        """Aligned plain text: the machine, then one line per result."""
        head = "; ".join(f"{name} {value}" for name, value in self.machine.items())
        rows = [("benchmark", "case", "value", "unit", "note")]
        rows += [(r.benchmark, r.case, _digits(r.value), r.unit, r.note) for r in self.results]
        wide = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{name:<{wide[0]}}  {case:<{wide[1]}}  {value:>{wide[2]}}  {unit:<{wide[3]}}  {note}"
            for name, case, value, unit, note in rows
        ]
        return "\n".join([head, "", *(line.rstrip() for line in lines)])


def _digits(value: float) -> str:
    """Three significant digits or more, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What ran the benchmarks, and when.

    `load` is the average number of busy processes in the last minute. These benchmarks alone keep
    it at the number of threads; beyond the number of cores, others took part of the machine.
    """
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "lengthwise": __version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu() -> str:
    """The processor's name; Linux keeps it in a file that `platform` does not read."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Bench:
    """A benchmark under way: how it measures, and what it has measured.

    Args:
        name: its name in `BENCHMARKS`.
        repeats: measurements behind each median.
        on_progress: called with a few words before each measurement.
    """

    def __init__(
        self, name: str, repeats: int = 5, on_progress: Callable[[str], object] | None = None
    ) -> None:
        self.name, self.repeats, self.on_progress = name, repeats, on_progress
        self.results: list[Result] = []

    def say(self, words: str) -> None:
        """What is measured next."""
        if self.on_progress is not None:
            self.on_progress(f"{self.name}: {words}")

    def add(self, case: str, value: float | Iterable[float], unit: str, note: str = "") -> float:
        """Keep a number, or the median of several; it is returned."""
        value = statistics.median(value) if isinstance(value, Iterable) else value
        self.results.append(Result(self.name, case, value, unit, note))
        return value


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """How long one call takes, to the end of what it gave a GPU to do."""

    def wait() -> None:
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def alternate(works: Iterable[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Time several pieces of work in turn, A B A B, so that a busy machine slows all of them alike.

    Each is called once before the clock starts.

    Returns:
        Seconds `[work][repeat]`.
    """
    works = list(works)
    for work in works:
        work()
    rounds = [[seconds(work) for work in works] for _ in range(repeats)]
    return [list(times) for times in zip(*rounds, strict=True)]


def ratios(slow: Iterable[float], fast: Iterable[float]) -> list[float]:
    """How many times as long one work took as the other, turn by turn."""
    return [one / other for one, other in zip(slow, fast, strict=True)]


def wanted(found: Iterable[float], *, least: float | None = None, most: float | None = None) -> str:
    """What a median was meant to be, and whether it is, as a note of `Bench.add`."""
    value = statistics.median(found)
    if least is not None:
        return f"wanted: at least {least:g}, {'met' if value >= least else 'missed'}"
    return f"wanted: less than {most:g}, {'met' if most is None or value < most else 'missed'}"


# A child's peak memory counts that of the process that started it, up to the moment it becomes its own
# (getrusage(2)); so a small process stands between.
_LAUNCHER = """
import os, sys, time
began = time.perf_counter()
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
spent = time.perf_counter() - began
with open(sys.argv[1], "w") as file:
    print(os.waitstatus_to_exitcode(status), spent, usage.ru_maxrss, file=file)
"""


def measured_process(arguments: list[str], stdout: int | None = None) -> tuple[float, float]:
    """Wall-clock seconds and peak memory in MiB of Python with these arguments.

    Raises:
        InputError: where the system does not count a process's memory (Windows).
        RuntimeError: when it does not end with 0.
    """
    if not hasattr(os, "wait4"):
        raise InputError(
            "this system does not count the memory of a process; measure other benchmarks"
        )
    with tempfile.NamedTemporaryFile("r") as file:
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, file.name, sys.executable]
        subprocess.run([*command, *arguments], stdout=stdout, stderr=subprocess.DEVNULL, check=True)
        code, spent, memory = file.read().split()
    if code != "0":
        raise RuntimeError(f"python {' '.join(arguments)} ended with {code}")
    return float(spent), int(memory) * (1 if sys.platform == "darwin" else 1024) / 2**20
