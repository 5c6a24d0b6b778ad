"""Clusters of Ray's on loopback, from an environment of its own; `make test-ray` runs this.

FINCH_RAY is that environment's folder. Without it these tests are not collected: nothing else needs
Ray, and starting it takes half a minute.
"""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from socket import socket

import httpx
import psutil
import pytest

PLACE = os.environ.get("FINCH_RAY")
SECONDS = 600

if PLACE is None:
    collect_ignore_glob = ["test_*.py"]


class Cluster:
    """A cluster that serves.

    Attributes:
        url: Where.
        model: The name that requests give.
        process: It, or None.
    """

    def __init__(self, url, model, process):
        self.url, self.model, self.process = url, model, process

    def client(self):
        return httpx.Client(base_url=self.url, timeout=SECONDS)

    def processes(self, kind):
        """The processes of one kind of replica, as Ray names them."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with_name = process.cmdline()[:1]
            if with_name and with_name[0].startswith("ray::") and kind in with_name[0]:
                found.append(process)
        return found


@contextmanager
def serving(folder, model, **options):
    """Start a cluster with an application and wait until it is ready."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    python = Path(PLACE).absolute() / "bin" / "python"
    given = [f"{name}={value}" for name, value in {"model": model, "cpus": 0.5, **options}.items()]
    command = [python, Path(__file__).with_name("cluster.py"), str(port), *given]
    environment = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_raylet_start_wait_time_s": "90",
        "RAY_USAGE_STATS_ENABLED": "0",
        **{name: value for name, value in os.environ.items() if name != "FINCH_SERVE_KEY"},
    }
    log = folder / "log"
    running = Cluster(f"http://127.0.0.1:{port}", str(model), None)
    end = time.monotonic() + SECONDS
    try:
        # Where others have the processor, Ray may end because one of its parts takes 15 seconds.
        while not _is_ready(running, end):
            if time.monotonic() > end:
                sys.stderr.write(log.read_text()[-4000:])
                pytest.fail("the cluster does not answer")
            _end(running.process)
            with log.open("w") as out:
                running.process = subprocess.Popen(
                    list(map(str, command)), stdout=out, stderr=subprocess.STDOUT, env=environment
                )
        yield running
    finally:
        _end(running.process)


def _end(process):
    """End a cluster's processes, if there is one."""
    if process is None:
        return
    all_of_it = []
    if process.poll() is None:
        all_of_it = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
    process.wait(60)
    psutil.wait_procs(all_of_it, timeout=30)
    for left in all_of_it:
        if left.is_running():
            left.kill()


def _is_ready(running, end):
    """Wait until a cluster answers, or has ended."""
    with running.client() as client:
        while running.process and running.process.poll() is None and time.monotonic() < end:
            try:
                if client.get("/ready", timeout=10).status_code == 200:
                    return True
            except httpx.HTTPError:
                pass
            time.sleep(1)
    return False


@pytest.fixture(scope="session")
def cluster(folders, tmp_path_factory):
    """Two processes that read and answer."""
    place = tmp_path_factory.mktemp("cluster")
    with serving(place, folders[0], min_replicas=2, max_replicas=2) as running:
        yield running
