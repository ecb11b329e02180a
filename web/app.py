"""The web process: health checks for the platform, a status page for people, webhooks of WhatsApp."""

from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse

from core.errors import FanfareError
from web import status_page, whatsapp_webhook
from web.health import ADVICE, Readiness

# Nothing but our own style sheet: no script, no frame, no form, nothing of another site.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def make_app() -> FastAPI:
    """The ASGI app; connects to nothing before it is asked something."""
    app = FastAPI(title="Fanfare", openapi_url=None, docs_url=None, redoc_url=None)
    readiness = Readiness()
    app.include_router(whatsapp_webhook.make_router())

    @app.get("/health/live")
    async def live() -> JSONResponse:
        """The process answers."""
        return JSONResponse({"status": "ok"}, headers=HEADERS)

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        """The process can do its work; otherwise 503 with a problem document (RFC 9457) that names what is down."""
        problems = await readiness.problems()
        return problem(problems) if problems else JSONResponse({"status": "ok"}, headers=HEADERS)

    @app.get("/")
    async def status() -> HTMLResponse:
        """The state of queues and campaigns. It shows names of campaigns and counts: nobody has to log in yet."""
        problems = await readiness.problems()
        if not problems:
            try:
                html = await run_in_threadpool(lambda: status_page.render(status_page.look(readiness.engine())))
                return HTMLResponse(html, headers=HEADERS)
            except FanfareError as error:
                problems = {"page": f"{type(error).__name__}. {ADVICE}"}
        return HTMLResponse(status_page.render_down(problems), HTTPStatus.SERVICE_UNAVAILABLE, headers=HEADERS)

    @app.get("/style.css")
    async def style() -> Response:
        """The page's style."""
        return Response(status_page.STYLE, media_type="text/css", headers=HEADERS)

    @app.exception_handler(HTTPStatus.NOT_FOUND)
    async def not_found(_: Request, __: Exception) -> JSONResponse:
        """Nothing is there."""
        body = {"type": "about:blank", "title": "Not Found", "status": HTTPStatus.NOT_FOUND}
        return JSONResponse(body, HTTPStatus.NOT_FOUND, HEADERS, "application/problem+json")

    return app


def problem(problems: dict[str, str]) -> JSONResponse:
    """503 as a problem document; `down` has what is down and what to do."""
    body = {
        "type": "about:blank",
        "title": "Not ready",
        "status": HTTPStatus.SERVICE_UNAVAILABLE,
        "detail": " ".join(problems.values()),
        "down": problems,
    }
    headers = HEADERS | {"Retry-After": "5"}
    return JSONResponse(body, HTTPStatus.SERVICE_UNAVAILABLE, headers, "application/problem+json")
