"""Running an import: from the stored file to contacts, batch by batch, going on where an earlier run ended."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from uuid import UUID

from db import import_batches, imports
from domain import contact
from domain.contact import Contact, ImportOptions, Rejected
from domain.contact_file import ContactFile, Row

_LARGEST_BATCH = 1000
_SMALLEST_BATCH = 10
_BATCHES = 20

Batch = list[Contact | Rejected]


def batch_size(lines: int) -> int:
    """Rows per batch, and so between two reports of progress, for a file of `lines`: a twentieth, from 10 to 1000.

    Up to 200 rows each 10 rows are reported, as OPT-10 asks; a larger file is reported each 5 percent or 1000 rows,
    because a commit per 10 rows would take longer than the import itself.
    """
    return min(max(lines // _BATCHES, _SMALLEST_BATCH), _LARGEST_BATCH)


def run(import_id: UUID, on_progress: Callable[[int, int], None] = lambda _done, _total: None) -> dict[str, object]:
    """Import the stored file, or what an earlier run left of it; returns `Import.summary`.

    Idempotent, also after a kill at any point: every batch is saved together with the place in the file where it ends,
    and a complete import is only reported. Memory does not grow with the file. Takes two connections. Must not be
    called in a transaction.

    Args:
        import_id: What `imports.accept` returned.
        on_progress: Called after each batch that has been committed, with the records done and about how many there
            are; see `batch_size`.

    Raises:
        PermanentError: the file cannot be read any further (the message has the line); what is before it is imported.
        Cancelled: the job has been cancelled.
        NotYet: another worker runs this import, as happens when a lease ends under a worker that is merely slow.
        TransientError: the database was lost.
    """
    stored = imports.load(import_id)
    if stored.completed_at is None:
        options = ImportOptions.model_validate(stored.options)
        rows = ContactFile(imports.open_source(stored), options.mapping)
        batches = _batches(islice(rows, stored.records_done, None), options, batch_size(stored.source_lines))
        for done, total in _saved(import_id, stored.records_done, batches, options):
            on_progress(done, total)
        stored = imports.complete(import_id)
    return stored.summary


def _batches(rows: Iterator[Row], options: ImportOptions, size: int) -> Iterator[Batch]:
    while batch := [contact.read(row, options) for row in islice(rows, size)]:
        yield batch


def _saved(import_id: UUID, done: int, batches: Iterator[Batch], options: ImportOptions) -> Iterator[tuple[int, int]]:
    """Save the batches in order, each in another thread while the next one is read; what `save` returns, for each.

    Where reading fails, the batch before is saved all the same.
    """
    with ThreadPoolExecutor(1, "import-writer") as writer:
        pending = None
        for batch in batches:
            if pending is not None:
                yield pending.result()
            pending = writer.submit(
                import_batches.save, import_id, done, batch, update_existing=options.update_existing
            )
            done += len(batch)
        if pending is not None:
            yield pending.result()
