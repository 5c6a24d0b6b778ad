"""How many threads compute, and how they wait. Called before torch is imported, which asks once."""

import os

# Waiting threads of OpenMP spin by default: on a busy machine they take the time of those that they
# wait for. Measured with `benchmarks.threads`.
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def set_threads(wanted: int | None) -> None:
    """Set the environment: `wanted` threads, or as many as there are idle processors.

    What the user has set in the environment is kept, unless a number is wanted.
    """
    for name, value in _PASSIVE.items():
        os.environ.setdefault(name, value)
    if wanted is not None:
        os.environ.update(dict.fromkeys(_COUNTS, str(wanted)))
    elif "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(idle_processors())


def idle_processors() -> int:
    """Processors that this process may use and that others do not keep busy; at least one."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        busy = round(os.getloadavg()[0])
    except (AttributeError, OSError):
        return allowed
    return max(1, min(allowed, (os.cpu_count() or allowed) - busy))
