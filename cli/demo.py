"""`fanfare demo`: the whole product on real input, with its own processes and commands, in a folder of its own."""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from brokers.choose import make_engine
from cli import demo_check
from cli.output import console, show_path
from cli.processes import Processes, read_procfile, shell_words
from core.errors import PermanentError, SettingsError
from core.settings import Settings, get_settings
from db import embedded
from simulator.process import RunningSimulator, running_simulator

app = typer.Typer(add_completion=False)

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = Path("tests/data/contacts_10k.csv")
SENDER = "106540352242922"
RATE = 80
TEXT = "Hi {{name}}, order {{order_id}} is on its way to {{city}}."
DEFAULTS = {"name": "there", "city": "you"}
READY_WITHIN = timedelta(seconds=60)
FAULTS = {"131026": 0.01, "http:503": 0.01, "http:500": 0.005}
"""Shares of the requests: not on WhatsApp (permanent), unavailable (tried again), answer lost (unknown)."""


@app.command()
def run(
    recipients: Annotated[int, typer.Option(min=1, max=8000, help="Contacts that the campaign is for.")] = 2000,
    rate: Annotated[float, typer.Option(min=1, max=80, help="Messages a second.")] = RATE,
) -> None:
    """Show everything at work: import 10,000 contacts, send a campaign to the simulator.

    Runs the commands of the Procfile with an embedded PostgreSQL of its own, or with BROKER_URL's Redis as broker. At
    the end it compares its ledger with the simulator's log and ends all processes. Ends with 1 where anything differs.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    if not (ROOT / SAMPLE).exists() or not (ROOT / "Procfile").exists():
        raise PermanentError(f"The demo runs from a clone of the repository: {SAMPLE} and the Procfile are needed.")
    os.chdir(ROOT)  # the `.env` of the processes that it starts is its own, too
    settings = get_settings()
    with _folder(settings) as folder, _broker(settings) as namespace:
        good = _show(settings, folder, namespace, recipients, rate)
    show_path("\nAll processes have ended. Their logs", folder / "logs")
    if not good:
        raise PermanentError(
            "The ledger and the simulator's log differ: see the lines marked above.", code="demo_failed"
        )


def _show(settings: Settings, folder: Path, namespace: str, recipients: int, rate: float) -> bool:
    port = _free_port()
    with ExitStack() as stack:
        simulator = stack.enter_context(
            running_simulator(data=folder / "simulator", seed=7, rate=RATE, latency_ms=15, jitter_ms=15, shares=FAULTS)
        )
        variables = _variables(settings, folder, namespace, port, simulator)
        processes = stack.enter_context(Processes(ROOT, folder / "logs", variables))
        _heading("Fanfare, with the commands of its Procfile")
        _start(processes, port, settings, simulator)
        good = _import(processes)
        return _campaign(processes, simulator, recipients, rate) and good


def _start(processes: Processes, port: int, settings: Settings, simulator: RunningSimulator) -> None:
    commands = read_procfile(ROOT / "Procfile")
    _tell("simulator", f"{simulator.url}/admin")
    release = commands.pop("release")
    processes.run("release", release)
    _tell("release", f"{release}  (embedded PostgreSQL; broker: {settings.broker_kind})")
    for name, command in commands.items():
        processes.start(name, command)
    url = f"http://127.0.0.1:{port}"
    processes.wait_until(lambda: _answers(f"{url}/health/ready"), "web is not ready", within=READY_WITHIN)
    for name, command in commands.items():
        _tell(name, f"{command}  ({url})" if name == "web" else command)


def _import(processes: Processes) -> bool:
    _heading("Contacts")
    _command(processes, "contacts", "import", SAMPLE, "--watch")
    (imported,) = _json(processes, "contacts", "list", "--limit", 1)
    return demo_check.show_import(imported, json.loads((ROOT / SAMPLE).with_suffix(".expected.json").read_text()))


def _campaign(processes: Processes, simulator: RunningSimulator, recipients: int, rate: float) -> bool:
    _heading("Campaign")
    words: list[object] = ["campaign", "send", "--name", "Order update", "--text", TEXT]
    for name, value in DEFAULTS.items():
        words += ["--default", f"{name}={value}"]
    _command(processes, *words, "--sender", SENDER, "--rate", f"{rate:g}", "--limit", recipients, "--watch")
    (newest,) = _json(processes, "campaign", "list", "--limit", 1)
    (ledger,) = [_json(processes, "campaign", "show", newest["id"])]
    _heading("Does the ledger say what the simulator saw?")
    return demo_check.show_campaign(ledger, simulator.summary(), recipients, SENDER)


def _variables(
    settings: Settings, folder: Path, namespace: str, port: int, simulator: RunningSimulator
) -> dict[str, str]:
    """The demo's own places for everything, so that it meets nothing of the user's; a Redis of BROKER_URL stays."""
    own_broker = {} if settings.broker_kind == "redis" else dict.fromkeys(("BROKER_URL", "REDIS_URL", "REDIS_HOST"), "")
    return own_broker | {
        "DATABASE_URL": "",
        "DATA_DIR": str(folder),
        "BROKER_NAMESPACE": namespace,
        "PORT": str(port),
        "WHATSAPP_BASE_URL": simulator.whatsapp_base_url,
        "WHATSAPP_TOKEN": "demo",
        "SENTRY_DSN": "",
        "PYTHONUNBUFFERED": "1",
    }


@contextmanager
def _folder(settings: Settings) -> Iterator[Path]:
    """The demo's folder, emptied; nothing of its database runs before or after."""
    folder = settings.data_dir.resolve() / "demo"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(f"Another demo runs in {folder}: wait for its end.", code="demo_runs") from error
        try:
            embedded.stop(folder)
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
        except PermissionError as error:
            message = f"{folder} is of an earlier demo by another user: remove it, or set DATA_DIR to another folder."
            raise SettingsError(message, code="data_dir_not_writable") from error
        try:
            yield folder
        finally:
            embedded.stop(folder)


@contextmanager
def _broker(settings: Settings) -> Iterator[str]:
    """A namespace of the demo's own in Redis, for this run only; queues that others use are not touched."""
    namespace = f"fanfare-demo-{secrets.token_hex(4)}"
    if settings.broker_kind != "redis":
        if settings.resolved_broker_url:
            console().print("[yellow]BROKER_URL's PostgreSQL is left alone: the demo uses a database of its own.[/]")
        yield namespace
        return
    make_engine(settings.model_copy(update={"broker_fallback": False})).ping()
    try:
        yield namespace
    finally:
        demo_check.forget(settings.resolved_broker_url, namespace)


def _command(processes: Processes, *words: object) -> None:
    """Run one of our commands where the user sees it."""
    line = shell_words("fanfare", *words)
    console().print(f"[dim]$[/] {escape(line)}\n", soft_wrap=True)
    processes.run("command", line, show=True)


def _json(processes: Processes, *words: object) -> Any:  # noqa: ANN401 - what the command printed
    return json.loads(processes.run("query", shell_words("fanfare", *words, "--json")).splitlines()[-1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)  # noqa: PLR2004 - OK
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # asked once is enough; what follows ends everything
    raise KeyboardInterrupt


def _heading(text: str) -> None:
    console().print()
    console().rule(f"[bold]{text}", align="left", style="dim")
    sys.stdout.flush()


def _tell(name: str, text: str) -> None:
    console().print(f"[green]✓[/] [bold]{name:10}[/] {escape(text)}", soft_wrap=True)
