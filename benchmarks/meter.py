"""What a piece of work takes: time, how it is divided, and peak memory.

On a CPU the time is the processor's, on a GPU the clock's.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Meter:
    """Adds up the time of named parts, and what of it all the model took.

    Attributes:
        seconds: Of every part so far. Of `model`, only on a CPU: a GPU works on its own.
    """

    def __init__(self, model: Any, device: Any) -> None:
        """Watch a model.

        Args:
            model: A torch module.
            device: Where it is.
        """
        self.seconds: dict[str, float] = {}
        self._device = device
        if device.type == "cpu":
            began: list[float] = []
            model.register_forward_pre_hook(lambda *_: began.append(self._now()))
            model.register_forward_hook(lambda *_: self._add("model", began.pop()))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside as a part."""
        began = self._now()
        yield
        self._add(name, began)

    def reset(self) -> None:
        """Begin again."""
        self.seconds = {}

    def _add(self, name: str, began: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - began

    def _now(self) -> float:
        if self._device.type == "cpu":
            return time.process_time()
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()


def start_memory(device: Any) -> int:
    """Bytes in use now; the peak is counted from here on, where the system allows that."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return peak_bytes(device)


def peak_bytes(device: Any) -> int:
    """The most bytes in use since `start_memory`: of the process, or on the GPU."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
