"""The ASGI app: which path goes where."""

import re

from simulator.admin import Admin
from simulator.http import Receive, Scope, Send
from simulator.ledger import Ledger, stream
from simulator.plan import Plan
from simulator.server import Connections
from simulator.whatsapp import WhatsApp

_MESSAGES = re.compile(r"/v\d+\.\d+/([^/]+)/messages")


class App:
    """The simulator as an ASGI app; begins with the books that the log in `ledger` tells."""

    def __init__(self, ledger: Ledger, plan: Plan, connections: Connections) -> None:
        self._whatsapp = WhatsApp(ledger, plan, connections.cut)
        self._admin = Admin(self._whatsapp, lambda: connections.made)
        for arrival in stream(ledger.path):
            self._whatsapp.books.add(arrival)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["method"] == "POST" and (match := _MESSAGES.fullmatch(scope["path"])):
            await self._whatsapp(scope, receive, send, match[1])
        else:
            await self._admin(scope, receive, send)
