"""`python -m simulator`: runs the simulator until it is stopped. `--help` shows the options."""

import argparse
import json
import socket
import sys
from pathlib import Path

from pydantic import ValidationError

from core.settings import get_settings
from simulator.app import App
from simulator.ledger import Ledger
from simulator.plan import Plan
from simulator.server import Connections, run


def main() -> None:
    """Prints one JSON line with its address when it is ready; ends with 0 when it is asked to stop."""
    options = _parser().parse_args()
    try:
        plan = Plan.model_validate(_plan(options))
    except ValidationError as error:
        raise SystemExit(f"The plan is wrong: {error}") from None
    ledger = Ledger(options.data, fsync=options.fsync)
    connections = Connections()
    app = App(ledger, plan, connections)
    with socket.create_server((options.host, options.port), backlog=2048) as listener:
        url = f"http://{options.host}:{listener.getsockname()[1]}"

        def ready() -> None:
            known = {"url": url, "whatsapp_base_url": f"{url}/v23.0", "admin": f"{url}/admin", "log": str(ledger.path)}
            sys.stdout.write(json.dumps(known) + "\n")
            sys.stdout.flush()

        run(app, listener, connections, ready, until_stdin_closes=options.until_stdin_closes)
    ledger.close()


def _parser() -> argparse.ArgumentParser:
    settings = get_settings()
    parser = argparse.ArgumentParser(prog="python -m simulator", description="A made-up WhatsApp for your app.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=settings.simulator_port, help="0: any free one (%(default)s)")
    folder = settings.data_dir / "simulator"
    parser.add_argument("--data", type=Path, default=folder, help="folder of the log (%(default)s)")
    parser.add_argument("--fsync", action="store_true", help="answer only when the log is on the disk")
    parser.add_argument("--plan", type=Path, help="JSON file with any of the fields of docs/simulator.md")
    parser.add_argument("--seed", type=int, help="decides which requests fail")
    parser.add_argument("--rate", type=float, help="messages per second of a number, 0: no limit (80)")
    parser.add_argument("--latency-ms", type=float, help="time before each answer (0)")
    parser.add_argument("--jitter-ms", type=float, help="up to so much more (0)")
    parser.add_argument("--no-pair-limit", action="store_true", help="any number of messages to one recipient")
    parser.add_argument("--number", action="append", default=[], metavar="ID=RATE", help="a number's own rate")
    parser.add_argument("--fault", action="append", default=[], metavar="OUTCOME=SHARE", help="such as 131026=0.01")
    parser.add_argument("--webhook-url", help="status webhooks go there (nowhere)")
    parser.add_argument("--app-secret", help="signs them")
    parser.add_argument("--until-stdin-closes", action="store_true", help="also end when standard input does")
    return parser


def _plan(options: argparse.Namespace) -> dict[str, object]:
    plan: dict[str, object] = json.loads(options.plan.read_text()) if options.plan else {}
    for field in ("seed", "rate", "latency_ms", "jitter_ms", "webhook_url", "app_secret"):
        if (value := getattr(options, field)) is not None:
            plan[field] = value
    if options.no_pair_limit:
        plan["pair_limit"] = False
    for field, pairs in (("rates", options.number), ("shares", options.fault)):
        if pairs:
            plan[field] = dict(pair.rpartition("=")[::2] for pair in pairs)
    return plan


if __name__ == "__main__":
    main()
