"""A small cluster, which serves until it is ended: `python cluster.py PORT NAME=VALUE …`.

Runs in the environment that has Ray, which the tests themselves do not need.
"""

import signal
import sys

import ray
from ray import serve

from finch_integrations.serve.ray import RayOptions, app


def main(port, *options):
    given = dict(option.split("=", 1) for option in options)
    application = app(RayOptions(**given))  # before Ray is there, as `serve run` does it
    ray.init(num_cpus=16, object_store_memory=80 << 20, include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(application, name="finch")
    try:
        signal.pause()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main(*sys.argv[1:])
