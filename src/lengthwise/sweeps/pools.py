"""Which workers do a sweep, as a person says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lengthwise.errors import InputError
from lengthwise.sweeps.local import LocalPool, share_cores
from lengthwise.sweeps.loop import Pool

# Minutes that a job of Slurm is given.
DAY = 24 * 60


def choose_pool(
    out: Path,
    workers: int | None = None,
    threads: int | None = None,
    *,
    ray: str | None = None,
    slurm: str | None = None,
    gpus: float = 0.0,
    minutes: int | None = None,
) -> tuple[Callable[[], Pool], int | None]:
    """What makes the pool, and how many work at once, where that is known before.

    Args:
        out: the sweep's folder.
        workers, threads: see each pool.
        ray: the address of a cluster, or `local`.
        slurm: a partition.
        gpus: of each worker on a cluster.
        minutes: of each job of Slurm.

    Raises:
        InputError: for two clusters at once, and for what a cluster of this kind does not have.
    """
    if ray is not None and slurm is not None:
        raise InputError("--ray and --slurm are two clusters; give one of them")
    if minutes is not None and slurm is None:
        raise InputError("--minutes are of jobs of Slurm; give --slurm PARTITION, too")
    if minutes is not None and minutes < 2:
        raise InputError(
            "--minutes must be 2 or more: a job is asked to end one before they are over"
        )
    if gpus and ray is None and slurm is None:
        raise InputError(
            "--gpus is of clusters; on this machine workers share its GPUs by themselves"
        )
    if ray is not None:
        from lengthwise.sweeps.on_ray import RayPool

        known = share_cores(workers, threads)[0] if ray == "local" else workers
        return lambda: RayPool(ray, workers, threads, gpus), known
    if slurm is not None:
        from lengthwise.sweeps.on_slurm import SlurmPool

        if gpus != int(gpus):
            raise InputError(f"Slurm gives whole GPUs; got --gpus {gpus:g}")
        folder, most = out / "slurm", minutes or DAY
        return (
            lambda: SlurmPool(slurm, folder, workers, threads, gpus=int(gpus), minutes=most),
            workers,
        )
    return lambda: LocalPool(workers, threads), share_cores(workers, threads)[0]
