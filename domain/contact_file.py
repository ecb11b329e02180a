"""Reads a contacts file row by row, with named columns, whatever program wrote it."""

from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

from core.errors import PermanentError
from domain.contact_columns import name_columns, recognized
from domain.csv_records import CsvRecords

MAX_COLUMNS = 500
MAX_CELL = 10_000
"""Most characters in one cell; the record of a longer one is reported and left out."""

_SHOWN = 200


class Problem(NamedTuple):
    """Why a row cannot be used, and where it shows.

    Attributes:
        column: The column; "" where it is about the whole row.
        value: The cell as written, or the row's beginning; at most 200 characters.
        reason: A stable word, such as `column_count` or `invalid_phone`.
    """

    column: str
    value: str
    reason: str


class Row(NamedTuple):
    """One record that is not blank.

    Attributes:
        line: Line of the file on which it begins; the header is usually 1.
        cells: Column name (see `contact_columns.name_columns`) to text without outer spaces.
        problem: None where it is well formed; else `column_count`, `cell_too_long` or `nul_character`.
    """

    line: int
    cells: dict[str, str]
    problem: Problem | None


class ContactFile:
    """A contacts file that is open for reading, once, from its beginning to its end.

    Args:
        stream: The file's bytes; need not be seekable, is read in blocks and not closed.
        mapping: Header to the column name it shall have, going before what is recognised; "" leaves a column out.

    Attributes:
        columns: Names of the columns, in order; "" for one that is left out.

    Raises:
        PermanentError: the file is empty, is no text, has more than 500 columns or none for phone or e-mail. While
            rows are read: a record is too long, see `CsvRecords`.
    """

    def __init__(self, stream: BinaryIO, mapping: Mapping[str, str] | None = None) -> None:
        self._records = CsvRecords(stream, recognized)
        self._iterator = iter(self._records)
        _, header = next(self._iterator, (0, []))
        if not header:
            raise PermanentError("The file is empty: it has no header line.", code="import_empty")
        if len(header) > MAX_COLUMNS:
            raise PermanentError(
                f"The file has {len(header)} columns; at most {MAX_COLUMNS} can be imported.",
                code="import_too_many_columns",
            )
        self.columns = name_columns(header, mapping)
        if not {"phone", "email"} & set(self.columns):
            shown = ", ".join(cell.strip()[:40] for cell in header[:20])
            raise PermanentError(
                f"The first line has no column for a phone number or an e-mail address. It reads: {shown}. "
                "Name one of its columns phone or email, or map it.",
                code="import_no_contact_column",
            )

    @property
    def encoding(self) -> str:
        """Python's name of the encoding that was detected."""
        return self._records.encoding

    @property
    def delimiter(self) -> str:
        """The character between two cells."""
        return self._records.delimiter

    def __iter__(self) -> Iterator[Row]:
        """The rows in the file's order. Blank lines are no rows."""
        columns, width, strip = self.columns, len(self.columns), str.strip
        is_whole = "" not in columns
        records = self._records
        for line, record in self._iterator:
            is_suspect = len(record) != width or records.size > MAX_CELL or "\0" in "".join(record)
            cells = dict(zip(columns, map(strip, record), strict=False))
            if not is_whole:
                cells.pop("", None)
            yield Row(line, cells, self._problem(record) if is_suspect else None)

    def _problem(self, record: list[str]) -> Problem | None:
        """What is wrong with a record's form. Empty cells beyond the last column are not: spreadsheets write them."""
        width = len(self.columns)
        if len(record) < width or "".join(record[width:]).strip():
            return Problem("", self.delimiter.join(record[: width + 1])[:_SHOWN].replace("\0", ""), "column_count")
        for column, cell in zip(self.columns, record, strict=False):
            if len(cell) > MAX_CELL:
                return Problem(column, cell[:_SHOWN].replace("\0", ""), "cell_too_long")
            if "\0" in cell:
                return Problem(column, cell[:_SHOWN].replace("\0", ""), "nul_character")
        return None
