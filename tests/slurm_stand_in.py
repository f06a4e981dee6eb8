"""What a sweep needs of Slurm, on this machine: sbatch, srun, squeue, scancel, by the name it is called.

It knows one partition, `main`, and as many cores as jobs want. The folder of the variable SLURM_STAND_IN
holds a file for each job, with its processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "scancel")


def install(folder: Path) -> dict[str, str]:
    """The commands, in a folder; what the environment needs to find them."""
    for name in COMMANDS:
        path = folder / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} "$@"\n')
        path.chmod(0o755)
    (folder / "jobs").mkdir()
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "SLURM_STAND_IN": str(folder / "jobs")}


def sbatch(jobs: Path, script: str) -> None:
    if "#SBATCH --partition=main" not in Path(script).read_text():
        sys.exit("sbatch: error: invalid partition specified")
    number = str(len(list(jobs.iterdir())) + 1)
    environment = {**os.environ, "SLURM_JOB_ID": number, "SLURM_JOB_NODELIST": "here"}
    quiet = subprocess.DEVNULL
    job = subprocess.Popen(
        ["bash", script], env=environment, stdout=quiet, stderr=quiet, start_new_session=True
    )
    (jobs / number).write_text(f"{job.pid}\n")
    print(f"Submitted batch job {number}")


def srun(jobs: Path, *arguments: str) -> None:
    number = os.environ["SLURM_JOB_ID"]
    with (jobs / number).open("a") as file:
        file.write(f"{os.getpid()}\n")
    values, command = dict(zip(arguments[1::2], arguments[2::2], strict=False)), arguments[5:]
    for option, stream in (("--output", 1), ("--error", 2)):
        path = values[option].replace("%j", number).replace("%t", "0")
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
    os.execvp(command[0], command)


def squeue(jobs: Path, *arguments: str) -> None:
    for job in jobs.iterdir():
        if any(Path(f"/proc/{pid}/cmdline").exists() for pid in job.read_text().split()):
            print(f"{job.name}|RUNNING|None")


def scancel(jobs: Path, number: str) -> None:
    for pid in (jobs / number).read_text().split()[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGTERM)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(os.environ["SLURM_STAND_IN"]), *sys.argv[2:])
