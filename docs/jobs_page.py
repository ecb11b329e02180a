"""docs/jobs.md, made from the registry of job types."""

import os
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module

from brokers.job import JobType, registry
from core.errors import RetryPolicy

HEAD = """\
# Job types

<!-- Written by `make docs` from the job types in actors/, pipelines/ and periodic/: change it there. -->

Each is one file with its options beside the function. Of the priorities, CRITICAL runs first and LOW last. Attempts are
total tries for transient errors; permanent ones are not tried again.

"""

TABLE = """\
| Job type | Queue | Priority | Attempts | Waits between | Time limit | At once | Starts per second |
|---|---|---|---|---|---|---|---|
"""


def jobs_page() -> str:
    """The text of docs/jobs.md. Imports every job type, which declares it on a broker that never connects."""
    # Declaring needs a broker, not a server: with this address none is looked for, and no embedded database starts.
    os.environ["BROKER_URL"] = "redis://127.0.0.1:1"
    import_module("actors")  # the composition root; it finds the job types by name
    types = sorted(registry().values(), key=lambda job: (job.queue, job.name))
    return HEAD + TABLE + "".join(map(_row, types)) + "".join(map(_section, types))


def duration_text(duration: timedelta) -> str:
    """A duration in its largest whole unit: `2 s`, `5 min`, `36 h`, `7 days`."""
    for unit, seconds, least in (("days", 86400, 2), ("h", 3600, 1), ("min", 60, 1)):
        count, rest = divmod(duration.total_seconds(), seconds)
        if count >= least and not rest:
            return f"{count:g} {unit}"
    return f"{duration.total_seconds():g} s"


def backoff_text(retry: RetryPolicy) -> str:
    """The waits between tries, without jitter: `2 s, 4 s, 8 s`; the first four where there are more."""
    waits = [retry.delay_before(attempt, rand=lambda: 0.0) for attempt in range(2, retry.attempts + 1)]
    return ", ".join(map(duration_text, waits[:4])) + (" …" if len(waits) > 4 else "")  # noqa: PLR2004  as said above


def _row(job: JobType) -> str:
    cells = (
        f"[`{job.name}`](#{job.name.replace('.', '')})",
        f"`{job.queue}`",
        job.priority.name,
        str(job.retry.attempts),
        backoff_text(job.retry),
        duration_text(job.time_limit),
        "any" if job.concurrency is None else str(job.concurrency),
        "any" if job.rate is None else f"{job.rate:g}",
    )
    return f"| {' | '.join(cells)} |\n"


def _section(job: JobType) -> str:
    return "\n".join(("", f"## {job.name}", "", job.description, "", *_fields(job)))


def _fields(job: JobType) -> Iterator[str]:
    if not job.payload.model_fields:
        yield "It takes no data.\n"
        return
    yield "| Field | Type | Needed | What it is |\n|---|---|---|---|"
    for name, field in job.payload.model_fields.items():
        kind = getattr(field.annotation, "__name__", None) if not getattr(field.annotation, "__args__", ()) else None
        text = (kind or str(field.annotation)).replace("uuid.", "").replace("datetime.", "").replace("|", "or")
        yield f"| `{name}` | {text} | {'yes' if field.is_required() else 'no'} | {field.description or ''} |"
    yield ""
