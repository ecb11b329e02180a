"""`fanfare campaign`: sending one, watching it, what became of it."""

from importlib import import_module
from types import ModuleType
from typing import Annotated, Literal
from uuid import UUID

import typer

from cli import campaign_view, organization
from cli.campaign_request import Request, check, submit
from cli.compose import compose
from cli.organization import Organization
from cli.output import console, count, limit_text, show_json, show_table
from core.errors import PermanentError
from db import campaign_control, campaigns
from db.campaign_list import newest
from db.campaign_state import Steered
from domain.template import ProviderTemplate, Text

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Send campaigns, watch and steer them.")

_Campaign = Annotated[UUID, typer.Argument(metavar="ID", help="The campaign, as `campaign send` printed it.")]
_Version = Annotated[
    int | None,
    typer.Option(min=1, help="The version that you saw in `show --json`: refuse where someone changed it since."),
]
_Json = Annotated[bool, typer.Option("--json", help="For machines: the result as one object, nothing else.")]


@app.command()
def send(  # noqa: PLR0913 - a command's options are its arguments
    *,
    name: Annotated[str, typer.Option(help="What you call it.")],
    sender: Annotated[str, typer.Option(metavar="PHONE_NUMBER_ID", help="WhatsApp's id of the number to send from.")],
    text: Annotated[str | None, typer.Option(help='The message, such as "Hi {{name}}".')] = None,
    template: Annotated[str | None, typer.Option(help="Instead of a text: name of an approved template.")] = None,
    language: Annotated[str, typer.Option(help="The template's language.")] = "en",
    parameter: Annotated[
        list[str] | None, typer.Option(help='The template\'s parameters in order, such as "{{name}}"; repeatable.')
    ] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Value of a variable where a contact has none; repeatable."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only contacts with this tag.")] = None,
    import_id: Annotated[UUID | None, typer.Option("--import", metavar="ID", help="Only those of this import.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many contacts.")] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=10_000,
            help="The number's limit from now on, messages a second; a new number has WHATSAPP_RATE.",
            show_default="its last one",
        ),
    ] = None,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="The number has no limit from now on.")] = False,
    on_unknown: Annotated[
        Literal["hold", "resend"],
        typer.Option(help="A send whose answer was lost: hold it, or send it again and risk a second message."),
    ] = "hold",
    organization_name: Organization = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until its end.")] = False,
    as_json: _Json = False,
) -> None:
    """Send a message to all contacts, or to some of them; workers do the sending.

    The message is checked against the fields that contacts have before anything is stored. Contacts without a phone
    number, or without a value that the message needs, are skipped with that reason.
    """
    if (text is None) == (template is None):
        raise typer.BadParameter("give one of --text and --template")
    if tag is not None and import_id is not None:
        raise typer.BadParameter("give one of --tag and --import")
    if rate is not None and no_limit:
        raise typer.BadParameter("give one of --rate and --no-limit")
    if text is not None and parameter:
        raise typer.BadParameter("--parameter belongs to --template")
    request = Request(
        organization=organization_name,
        name=name,
        sender=sender,
        content=Text(body=text)
        if text is not None
        else ProviderTemplate(name=template or "", language=language, parameters=tuple(parameter or ())),
        defaults=_defaults(default or []),
        audience=_audience(tag, import_id, limit),
        rate=rate,
        no_limit=no_limit,
        unknown_policy=on_unknown,
    )
    check(request)
    compose()
    campaign_id = submit(request)
    if not watch:
        _tell_accepted(campaign_id, as_json=as_json)
        return
    _conclude(campaign_id, as_json=as_json)


@app.command()
def watch(campaign_id: _Campaign, *, as_json: _Json = False) -> None:
    """Follow a campaign until its end, then show the report. Ends with 1 where less than half was sent."""
    _conclude(campaign_id, as_json=as_json)


@app.command()
def show(campaign_id: _Campaign, *, as_json: _Json = False) -> None:
    """Show where a campaign stands, or its report when it has ended."""
    progress = campaigns.progress(campaign_id)
    if as_json:
        show_json(campaign_view.facts(progress))
    else:
        campaign_view.show_report(progress)


@app.command()
def pause(
    campaign_id: _Campaign,
    *,
    reason: Annotated[str, typer.Option(help="Why; shown to whoever watches it.")] = "by hand",
    version: _Version = None,
) -> None:
    """Let no further send of a campaign begin; those on the wire end."""
    steered = campaign_control.pause(campaign_id, reason, version=version)
    _tell(steered, f"Campaign {campaign_id} is paused. Let it go on with: fanfare campaign resume {campaign_id}")


@app.command()
def resume(campaign_id: _Campaign, *, version: _Version = None) -> None:
    """Let a paused campaign go on."""
    _tell(_steering().resume(campaign_id, version=version), f"Campaign {campaign_id} goes on.")


@app.command()
def cancel(
    campaign_id: _Campaign,
    *,
    reason: Annotated[str, typer.Option(help="Why; shown in its report.")] = "by hand",
    version: _Version = None,
) -> None:
    """End a campaign for good: nobody gets it any more, but those whose send is on the wire."""
    steered = _steering().cancel(campaign_id, reason, version=version)
    _tell(steered, f"Campaign {campaign_id} is {steered.status}.")


@app.command()
def rate(
    campaign_id: _Campaign,
    messages: Annotated[
        float | None,
        typer.Argument(min=0.001, max=10_000, metavar="RATE", help="Messages a second; without it, only the number's."),
    ] = None,
    *,
    version: _Version = None,
) -> None:
    """Give a campaign another limit of its own, below that of its number; workers obey within a second."""
    steered = _steering().change_rate(campaign_id, messages, version=version)
    _tell(steered, f"Campaign {campaign_id} has a limit of its own now: {limit_text(messages)}.")


@app.command("retry-failed")
def retry_failed(
    campaign_id: _Campaign,
    *,
    everyone: Annotated[
        bool, typer.Option("--all", help="Also those whose cause will hardly pass, as a number not on WhatsApp.")
    ] = False,
    version: _Version = None,
) -> None:
    """Send again to recipients that failed; a campaign that has ended runs until it ends again."""
    steered = _steering().retry_failed(campaign_id, permanent_too=everyone, version=version)
    _tell(steered, f"{count(steered.recipients)} recipients of campaign {campaign_id} are tried again.")


@app.command("list")
def list_campaigns(
    *,
    organization_name: Organization = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    as_json: _Json = False,
) -> None:
    """List the newest campaigns."""
    found = newest(organization.find(organization_name), limit=limit)
    if as_json:
        show_json([campaign_view.facts(progress, whole=False) for progress in found])
    elif found:
        show_table("Campaigns", campaign_view.campaigns_table(found))
    else:
        console().print("There are no campaigns yet. Send one with: fanfare campaign send --help")


def _steering() -> ModuleType:
    compose()
    return import_module("pipelines.campaign")


def _tell(steered: Steered, text: str) -> None:
    console().print(text if steered.changed else "Nothing to do: it was so already.", soft_wrap=True)


def _defaults(pairs: list[str]) -> dict[str, str]:
    values = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name or not value:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--default")
        values[name] = value
    return values


def _audience(tag: str | None, import_id: UUID | None, limit: int | None) -> campaigns.Audience:
    kind: Literal["all", "tag", "import"] = "tag" if tag is not None else "import" if import_id is not None else "all"
    return campaigns.Audience(kind=kind, tag=tag, import_id=import_id, limit=limit)


def _tell_accepted(campaign_id: UUID, *, as_json: bool) -> None:
    if as_json:
        show_json({"id": campaign_id, "status": "running"})
    else:
        console().print(f"Accepted: campaign {campaign_id}. Follow it with: fanfare campaign watch {campaign_id}")


def _conclude(campaign_id: UUID, *, as_json: bool) -> None:
    try:
        if not as_json:
            console().print(f"Campaign {campaign_id}")
        progress = campaign_view.follow(campaign_id, quiet=as_json)
    except KeyboardInterrupt:
        console().print(f"\nThe campaign goes on. Watch it again with: fanfare campaign watch {campaign_id}")
        raise
    if as_json:
        show_json(campaign_view.facts(progress))
    else:
        campaign_view.show_report(progress)
    if progress.status not in {"completed", "partial_success"}:
        raise PermanentError(f"The campaign ended as {progress.status}.", code="campaign_failed")
