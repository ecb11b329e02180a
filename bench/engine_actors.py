"""What the workers of `bench.engines` run, by dramatiq's own command line: `dramatiq bench.engine_actors:ours`.

Each function below composes a process: ours as `actors/__init__.py` does it, and the stock brokers as their
documentation says, with their default middleware. The servers are those of the settings.
"""

import json
import os
import resource
import socket
import struct
import threading
import time
from array import array
from pathlib import Path
from typing import Any

import dramatiq
import dramatiq_pg
from dramatiq.broker import Broker
from dramatiq.brokers.redis import RedisBroker

from brokers.choose import make_broker
from brokers.encoder import OrjsonEncoder
from core import logging
from core.settings import get_settings

QUEUE = "bench"
IDLE_QUEUES = 25
NAP_S = 0.05
REPORT_EVERY_S = 0.1
REPORTS = "reports"
ANSWERS = "answers"
MOMENT = struct.Struct("d")

moments = array("d")
"""When this process began each run, and ended it where that takes time; by a clock that all processes share."""


def ours() -> Broker:
    """The broker that BROKER_URL asks for."""
    settings = get_settings()
    logging.configure(settings)
    dramatiq.set_encoder(OrjsonEncoder())
    return _compose(make_broker(settings))


def ours_with_many_queues() -> Broker:
    """The same with actors of `IDLE_QUEUES` queues."""
    broker = ours()
    for number in range(1, IDLE_QUEUES):
        broker.declare_queue(f"bench-{number}")
    return broker


def stock_redis() -> Broker:
    """The broker of dramatiq itself."""
    return _compose(RedisBroker(url=get_settings().resolved_broker_url))


def stock_pg() -> Broker:
    """The broker of the package dramatiq-pg, in a database with its own schema."""
    return _compose(dramatiq_pg.PostgresBroker(url=get_settings().database_url))


def _compose(broker: Broker) -> Broker:
    dramatiq.set_broker(broker)
    for function in (nothing, answer, nap, gather):
        dramatiq.actor(function, broker=broker, queue_name=QUEUE)
    if type(broker).__module__.startswith("brokers."):
        dramatiq.actor(number, broker=broker, queue_name=QUEUE, store_results=True)
    return broker


# What they run


def nothing() -> None:
    """Note that it ran."""
    _note()


def nap() -> None:
    """Do nothing for `NAP_S`, as a job that waits for a provider."""
    _note()
    time.sleep(NAP_S)
    _note()


def answer(folder: str) -> None:
    """Tell the bench at once that the run began."""
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(MOMENT.pack(began), str(Path(folder) / ANSWERS))


def number(value: int) -> int:
    """A result to be summed."""
    return value


def gather(folder: str) -> None:
    """The callback of a group."""
    answer(folder)


# How they tell

_reporting = threading.Lock()


def _note() -> None:
    moments.append(time.monotonic())
    if len(moments) == 1 and _reporting.acquire(blocking=False):
        threading.Thread(target=_report, daemon=True).start()


def _report() -> None:
    path = get_settings().data_dir / REPORTS / f"{os.getpid()}.json"
    while True:
        time.sleep(REPORT_EVERY_S)
        written = path.with_suffix(".new")
        written.write_text(json.dumps(_facts()))
        written.rename(path)


def _facts() -> dict[str, Any]:
    return {
        "count": len(moments),
        "first": moments[0],
        "last": moments[-1],
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
