"""The admin page: what the simulator has seen, for people. No script runs in it; it reloads itself."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from simulator.ledger import Arrival

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d9dce1, #34383f); --soft: light-dark(#5b6270, #9aa2af);
  --card: light-dark(#ffffff, #1c1f24); --good: light-dark(#157347, #5bd08f); --bad: light-dark(#b42318, #ff8a7a); }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 64rem; line-height: 1.45;
  font-family: system-ui, sans-serif; background: light-dark(#f5f6f8, #121417); color: light-dark(#1a1d21, #e8eaed); }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0 1rem; color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 0; }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .4rem .8rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.text { max-width: 22rem; overflow: hidden; text-overflow: ellipsis; }
.good { color: var(--good); } .bad { color: var(--bad); }
"""

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="2"><title>Simulator</title><link rel="stylesheet" href="/admin/style.css"></head>
<body>
"""


def render(summary: dict[str, Any], last: Iterable[Arrival]) -> str:
    """The whole page for one `Books.summary` and the last requests, oldest first."""
    return "".join(
        (
            _HEAD,
            "<h1>Simulator</h1><p>The made-up WhatsApp and what it received. Reloads every 2 seconds.</p>",
            _totals(summary),
            "<h2>Numbers</h2>",
            _numbers(summary["numbers"]),
            "<h2>Outcomes</h2>",
            _table(["Outcome", "Requests"], ([name, count] for name, count in summary["outcomes"].items())),
            "<h2>Last requests</h2>",
            _last(reversed(list(last))),
            "</body></html>",
        )
    )


def _totals(summary: dict[str, Any]) -> str:
    names = {
        "requests": "Requests",
        "accepted": "Accepted",
        "distinct_recipients": "Recipients reached",
        "duplicates": "Duplicates",
        "connections": "Connections made",
    }
    cards = (f"<div><dt>{name}</dt><dd>{summary[key]:,}</dd></div>" for key, name in names.items())
    return f"<dl>{''.join(cards)}</dl>"


def _numbers(numbers: dict[str, dict[str, Any]]) -> str:
    header = ["Number", "Requests", "Accepted", "Limit/s", "Last second", "Last minute", "Worst 1 s", "Worst 2 s"]
    keys = ["requests", "accepted", "limit_per_s", "last_second", "last_minute", "worst_1s", "worst_2s"]
    rows = (
        [number, *(None if key == "limit_per_s" and not seen[key] else seen[key] for key in keys)]
        for number, seen in numbers.items()
    )
    return _table(header, rows)


def _last(arrivals: Iterable[Arrival]) -> str:
    rows = (
        [
            f"{datetime.fromtimestamp(arrival.at_ns / 1e9, UTC):%H:%M:%S.%f}"[:-3],
            arrival.number,
            arrival.recipient,
            arrival.outcome,
            arrival.accepted,
            _text(arrival.content),
        ]
        for arrival in arrivals
    )
    return _table(["Time (UTC)", "From", "To", "Outcome", "Accepted", "Message"], rows)


def _text(content: object) -> str:
    match content:
        case {"body": str(body)}:
            return body
        case {"name": str(name)}:
            return f"template {name}"
    return ""


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    if not body:
        return "<p>Nothing yet.</p>"
    counted = {"Requests", "Accepted", "Limit/s", "Last second", "Last minute", "Worst 1 s", "Worst 2 s"}
    numeric = counted if "Requests" in header else set()
    head = "".join(f'<th class="number">{name}</th>' if name in numeric else f"<th>{name}</th>" for name in header)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    match value:
        case bool():
            return f'<td class="{"good" if value else "bad"}">{"yes" if value else "no"}</td>'
        case int():
            return f'<td class="number">{value:,}</td>'
        case float():
            return f'<td class="number">{value:,g}</td>'
        case None:
            return '<td class="number">none</td>'
    return f'<td class="text">{escape(str(value))}</td>'
