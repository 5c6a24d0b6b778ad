"""A model that is busy, so that requests to it must wait."""

import threading
import time
from contextlib import contextmanager

from finch_integrations.pipeline.waiting import waiting_for
from finch_integrations.pipeline.worker import worker_of


@contextmanager
def busy_until(model, *, waiting):
    """Keep a model's worker busy until so many requests wait for it."""
    begun = threading.Event()

    def wait(check):
        begun.set()
        for _ in range(2000):
            if len(waiting_for(model)) >= waiting:
                break
            time.sleep(0.01)
        yield

    thread = threading.Thread(target=lambda: list(worker_of(model).stream(wait)))
    thread.start()
    assert begun.wait(20)
    yield
    thread.join(20)
    assert not thread.is_alive()
