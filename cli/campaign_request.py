"""From what a person typed to a campaign: checked first, then stored and set going in one transaction."""

from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

from cli import organization
from core.errors import PermanentError
from core.settings import get_settings
from db import imports, organizations, pool, senders
from db.campaigns import Audience, NewCampaign
from db.templates import known_fields
from domain.template import ProviderTemplate, Template, Text


@dataclass(frozen=True, slots=True)
class Request:
    """A campaign as it was asked for; `rate` None keeps the sender's own rate, or gives a new one the default."""

    organization: str | None
    name: str
    sender: str
    content: Text | ProviderTemplate
    audience: Audience
    defaults: dict[str, str] = field(default_factory=dict)
    rate: float | None = None
    no_limit: bool = False
    unknown_policy: Literal["hold", "resend"] = "hold"


def check(request: Request) -> None:
    """Raise PermanentError, with every problem in its message, where this campaign must not be sent. Stores nothing."""
    owner = organization.find(request.organization)
    template = Template(request.content, request.defaults)
    problems = template.validate(known_fields(owner, template.variables))
    if problems:
        lines = [problem.message for problem in problems]
        if any(problem.code == "unknown_variable" for problem in problems):
            lines.append("Give such a variable a value for all with --default NAME=VALUE.")
        raise PermanentError("\n".join(lines), code="template_invalid")
    import_id = request.audience.import_id
    if import_id is not None and imports.find(owner, import_id) is None:
        raise PermanentError(f"There is no import {import_id} of this organisation.", code="import_unknown")


def submit(request: Request) -> UUID:
    """Store the campaign and set it going, all or nothing; returns its id. Needs a composed process."""
    from pipelines.campaign import start  # noqa: PLC0415 - importing it composes the process

    with pool.transaction():
        owner = organizations.default() if request.organization is None else organizations.named(request.organization)
        new = NewCampaign(
            organization_id=owner,
            sender_id=_sender(owner, request),
            name=request.name,
            content=request.content.model_dump(mode="json"),
            variables=Template(request.content).variables,
            defaults=request.defaults,
            audience=request.audience,
            unknown_policy=request.unknown_policy,
        )
        return start(new)


def _sender(owner: UUID, request: Request) -> UUID:
    sender_id = senders.register(owner, request.sender, rate=get_settings().whatsapp_rate)
    if request.no_limit or request.rate is not None:
        from pipelines.campaign import change_sender_rate  # noqa: PLC0415 - as in `submit`

        change_sender_rate(sender_id, request.rate)
    return sender_id
