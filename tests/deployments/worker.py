"""A worker process of these tests: `python -m tests.deployments.worker QUEUES THREADS FILE`.

Serves the queues q0, q1, ... of the broker that the environment names, each with one actor, and writes a line to FILE
for each message that it runs.
"""

import os
import sys
import time
from pathlib import Path

import dramatiq
from dramatiq import Worker

from brokers.choose import make_broker
from core import logging
from core.settings import get_settings


def main(queues: int, threads: int, path: Path) -> None:
    """Serve until killed."""
    logging.configure(get_settings())
    broker = make_broker(get_settings())
    dramatiq.set_broker(broker)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(name: str, number: int, sends: int = 0) -> None:
        os.write(file, f"{name}\n".encode())
        for _ in range(sends):
            broker.get_actor(f"note{number}").send(name, number)

    for number in range(queues):
        dramatiq.actor(note, actor_name=f"note{number}", queue_name=f"q{number}", broker=broker)
    Worker(broker, worker_threads=threads).start()
    os.write(file, b"ready\n")
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
