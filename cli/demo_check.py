"""What the demo compares: counts with what they must be, the ledger with the simulator's own books."""

from typing import Any

import redis

from cli.output import console, count, show_table, table

Facts = dict[str, Any]

UNPUNCTUAL = 0.1
"""Share of the limit by which a second may be too full where the machine stalls: sends that wait arrive together."""


def show_import(imported: Facts, expected: Facts) -> bool:
    """Print the import's counts beside the expected ones; whether all are equal."""
    reasons = imported["errors_by_reason"]
    pairs = [
        ("rows", imported["rows"], expected["rows"]),
        ("new contacts", imported["inserted"], expected["valid"]),
        ("duplicate", imported["duplicate"], expected["duplicate"]),
    ]
    names = ("invalid_phone", "invalid_email", "missing_contact")
    pairs += [(name, reasons.get(name, 0), expected[name]) for name in names]
    return _show("Counts of the import", ("Counted", "Expected"), pairs)


def show_campaign(ledger: Facts, simulator: Facts, recipients: int, sender: str) -> bool:
    """Print the campaign's ledger beside the simulator's books; whether they agree and no limit was broken."""
    counts, seen = ledger["counts"], simulator["outcomes"]
    number = simulator["numbers"].get(sender, {"worst_1s": 0, "limit_per_s": 0})
    failures = {(one["status"], one["code"]): one["count"] for one in ledger["failures"]}
    settled = sum(counts[name] for name in ("sent", "failed", "skipped", "unknown"))
    good = _show(
        "",
        ("Ledger", "Simulator"),
        [
            ("messages accepted", counts["sent"], simulator["accepted"]),
            ("recipients reached", counts["sent"], simulator["distinct_recipients"]),
            ("not on WhatsApp (131026)", failures.get(("failed", "131026"), 0), seen.get("131026", 0)),
            ("answers lost (500), held", failures.get(("unknown", "http_500"), 0), seen.get("http:500", 0)),
            ("calls, repeated ones included", ledger["provider_calls"], simulator["requests"] - seen.get("130429", 0)),
        ],
    )
    return (
        _show(
            "",
            ("Found", "Must be"),
            [
                ("recipients accounted for", settled, recipients),
                ("messages sent twice", simulator["duplicates"], 0),
            ],
        )
        and _show_rate(number["worst_1s"], number["limit_per_s"], seen.get("130429", 0))
        and good
    )


def _show_rate(worst: int, limit: float, refused: int) -> bool:
    """Print the fullest second beside the limit; whether that was kept, or passed by as little as on a busy machine."""
    if worst <= limit:
        console().print(f"[green]✓[/]   at most {worst} calls in any second; the limit is {limit:g}")
        return True
    kept = worst <= limit * (1 + UNPUNCTUAL)
    console().print(
        f"{'[yellow]![/]' if kept else '[red]✗[/]'}   {worst} calls in the fullest second; the limit is {limit:g}. "
        f"{count(refused)} were refused and sent again later. This machine was too busy to be punctual."
    )
    return kept


def forget(url: str, namespace: str) -> None:
    """Remove the keys of the demo's namespace from its Redis."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"*{{{namespace}}}*", count=1000):
            client.unlink(key)


def _show(title: str, columns: tuple[str, str], rows: list[tuple[str, int, int]]) -> bool:
    made = table("", "", *columns, numbers=columns)
    all_good = True
    for name, found, wanted in rows:
        good = found == wanted
        all_good = all_good and good
        made.add_row("[green]✓[/]" if good else "[red]✗[/]", name, count(found), count(wanted))
    show_table(title, made)
    return all_good
