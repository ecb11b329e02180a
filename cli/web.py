"""`fanfare web`: the web process."""

from typing import Annotated

import typer
from granian import Granian
from granian.constants import Interfaces

from core import logging, telemetry
from core.settings import get_settings

app = typer.Typer(add_completion=False)

EVERYWHERE = "0.0.0.0"  # noqa: S104 - a platform's router, or a container's, reaches the process from outside
STOP_WAIT_S = 10


@app.command()
def run(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.", show_default="PORT")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = EVERYWHERE,
) -> None:
    """Serve the status page and the health checks."""
    settings = get_settings()
    logging.configure(settings)
    telemetry.configure(settings)
    server = Granian(
        "web.app:make_app",
        factory=True,
        address=host,
        port=port or settings.port,
        interface=Interfaces.ASGI,
        websockets=False,
        workers_kill_timeout=STOP_WAIT_S,
        log_enabled=False,  # its own set-up of logs would replace ours
    )
    logging.get_logger(__name__).info("web.started", host=host, port=port or settings.port)
    server.serve()
