"""The composition root of every process: import it, and jobs can be sent and run.

Settings, logging, error reports and the broker are made here, in this order, before any job type is declared; then all
modules of `actors`, `pipelines` and `periodic` are found by name. A new job type is a new file in one of them.
"""

import importlib
import pkgutil

import dramatiq

from brokers.choose import make_broker
from brokers.encoder import OrjsonEncoder
from core import logging, telemetry
from core.settings import get_settings

JOB_PACKAGES = ("actors", "pipelines", "periodic")


def _compose() -> None:
    settings = get_settings()
    logging.configure(settings)
    telemetry.configure(settings)
    dramatiq.set_encoder(OrjsonEncoder())
    dramatiq.set_broker(make_broker(settings))
    for package in JOB_PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")


_compose()
