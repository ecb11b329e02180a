"""The status page: queues and campaigns at one moment. No script runs in it; it reloads itself."""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from importlib.metadata import version

from brokers.engine import Engine, QueueDepth
from db.campaign_list import newest
from db.campaigns import FINAL_STATUSES, Progress

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d9dce1, #34383f); --soft: light-dark(#5b6270, #9aa2af);
  --card: light-dark(#ffffff, #1c1f24); --good: light-dark(#157347, #5bd08f); --bad: light-dark(#b42318, #ff8a7a);
  --warn: light-dark(#8a5a00, #f0b849); --bar: light-dark(#2563eb, #6ea8fe); }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 76rem; line-height: 1.45;
  font-family: system-ui, sans-serif; background: light-dark(#f5f6f8, #121417); color: light-dark(#1a1d21, #e8eaed); }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0 1rem; color: var(--soft); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .45rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.name { max-width: 22rem; overflow: hidden; text-overflow: ellipsis; }
progress { width: 7rem; height: .6rem; accent-color: var(--bar); vertical-align: middle; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
footer { margin-top: 2rem; color: var(--soft); font-size: .85rem; }
"""

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta http-equiv="refresh" content="5"><title>Fanfare: status</title>
<link rel="stylesheet" href="/style.css"></head><body>
<h1>Fanfare</h1>
"""
_TONES = {"completed": "good", "partial_success": "warn", "partial_failure": "bad", "failed": "bad", "paused": "warn"}
_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Status:
    """What the page shows."""

    broker: str
    queues: Sequence[QueueDepth]
    campaigns: Sequence[Progress]


def look(engine: Engine) -> Status:
    """The state of all queues, and of the newest campaigns. Raises FanfareError where it cannot be read."""
    return Status(engine.capabilities.name, engine.depths(), newest(limit=20))


def render(status: Status) -> str:
    """The whole page."""
    active = sum(campaign.status not in FINAL_STATUSES for campaign in status.campaigns)
    under_way = {0: "No campaign is", 1: "1 campaign is"}.get(active, f"{active} campaigns are") + " under way."
    versions = f"Fanfare {version('fanfare')}, dramatiq {version('dramatiq')}, Python {platform.python_version()}"
    return "".join(
        (
            _HEAD,
            f'<p><span class="good">Database and broker answer.</span> {under_way} Reloads every 5 seconds.</p>',
            "<main><h2>Campaigns</h2>",
            _table(_CAMPAIGN_COLUMNS, map(_campaign, status.campaigns), "No campaign was sent yet."),
            "<h2>Queues</h2>",
            _table(_QUEUE_COLUMNS, map(_queue, status.queues), "All queues are empty."),
            f"</main><footer>{escape(versions)}. Broker: {escape(status.broker)}.</footer></body></html>",
        )
    )


def render_down(problems: dict[str, str]) -> str:
    """The page when something is down."""
    items = "".join(f'<p class="bad">{escape(problem)}</p>' for problem in problems.values())
    return f"{_HEAD}<main><h2>Something is down</h2>{items}</main></body></html>"


_CAMPAIGN_COLUMNS = (
    "Campaign",
    "Status",
    "Progress",
    "#Recipients",
    "#Sent",
    "#Failed",
    "#Skipped",
    "#Unknown",
    "#Limit",
)
_QUEUE_COLUMNS = ("Queue", "#Waiting", "#Delayed", "#Running", "#Dead", "#Oldest waits", "State")


def _campaign(progress: Progress) -> Iterable[str]:
    c = progress.counts
    tone = _TONES.get(progress.status, "")
    yield f'<td class="name">{escape(progress.name)}</td><td class="{tone}">{escape(progress.status)}</td>'
    percent = 100 * c.settled / c.total if c.total else 0.0
    text = f"{percent:.0f} %" if progress.planned else "planning"
    yield f'<td><progress max="{max(c.total, 1)}" value="{c.settled}">{text}</progress> {text}</td>'
    yield from (_number(n) for n in (c.total, c.sent))
    yield _number(c.failed, "bad" if c.failed else "")
    yield _number(c.skipped)
    yield _number(c.unknown, "warn" if c.unknown else "")
    yield f'<td class="number">{"none" if progress.rate is None else f"{progress.rate:g}/s"}</td>'


def _queue(depth: QueueDepth) -> Iterable[str]:
    yield f'<td class="name">{escape(depth.queue)}</td>'
    yield from (_number(n) for n in (depth.waiting, depth.delayed, depth.leased))
    yield _number(depth.dead, "bad" if depth.dead else "")
    yield f'<td class="number">{_age(depth.oldest)}</td>'
    yield '<td class="warn">paused</td>' if depth.paused else "<td>runs</td>"


def _age(age: timedelta | None) -> str:
    if age is None:
        return "-"
    seconds = age.total_seconds()
    return f"{seconds:.0f} s" if seconds < 2 * _MINUTE_S else f"{seconds / _MINUTE_S:.0f} min"


def _number(number: int, tone: str = "") -> str:
    return f'<td class="number {tone}">{number:,}</td>'


def _table(columns: Sequence[str], rows: Iterable[Iterable[str]], nothing: str) -> str:
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    if not body:
        return f"<p>{nothing}</p>"
    head = "".join(
        f'<th scope="col" class="number">{name[1:]}</th>' if name[0] == "#" else f'<th scope="col">{name}</th>'
        for name in columns
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
