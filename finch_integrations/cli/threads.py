"""How threads compute and wait. To be called before torch is imported, which asks only once."""

import os

# Waiting threads of OpenMP spin by default: on a busy machine they take the time of those that they
# wait for. See `benchmarks.threads`: with this, more threads are faster there, too.
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def set_threads(wanted: int | None) -> None:
    """Set the environment; what the user has set is kept, but for a number that is wanted."""
    for name, value in _PASSIVE.items():
        os.environ.setdefault(name, value)
    if wanted is not None:
        os.environ.update(dict.fromkeys(_COUNTS, str(wanted)))
