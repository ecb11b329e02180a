"""Reads the records of a CSV file of any size from a stream: encoding and delimiter detected, memory bounded."""

import codecs
import csv
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import BinaryIO

from core.errors import PermanentError
from domain import text_encoding

SAMPLE_BYTES = 65_536
"""How much of a file's beginning decides about its encoding and its delimiter."""

MAX_RECORD = 1_000_000
"""Most characters in one record, its line breaks included."""

_DELIMITERS = ",;\t|"
_HINT = "sep="  # Excel's: a first line `sep=;` names the delimiter


class CsvRecords:
    """The records of a CSV file, once, from its beginning to its end.

    Args:
        stream: The file's bytes; need not be seekable, is read in blocks and not closed.
        score: Tells which of several readings of the header, one per delimiter, makes most sense; the highest wins,
            and among equals the one with most columns.

    Attributes:
        encoding: A Python codec name.
        delimiter: One of `,` `;` tab `|`, or what a first line `sep=…` says.
        size: Characters of the record that was given out last.

    Raises:
        PermanentError: the file is no text. While records are read: one is longer than `MAX_RECORD`, or one of its
            cells longer than the csv module's limit of 131 072 characters.
    """

    def __init__(self, stream: BinaryIO, score: Callable[[list[str]], int]) -> None:
        sample = _read_sample(stream)
        _refuse_binary(sample)
        self.encoding = text_encoding.detect(sample)
        self.size = 0
        self._begin = 1
        codecs.register_error(text_encoding.FALLBACK, text_encoding.read_as_cp1252)
        errors = text_encoding.FALLBACK if self.encoding.startswith("utf-8") else "replace"
        raw = io.BufferedReader(_Resumed(sample, stream), SAMPLE_BYTES)
        self._text = io.TextIOWrapper(raw, self.encoding, errors, newline="")
        self.delimiter, has_hint = _detect_delimiter(sample.decode(self.encoding, "replace"), score)
        self._reader = csv.reader(self._lines(), delimiter=self.delimiter)
        if has_hint:
            next(self._reader, None)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Pairs of line number, on which the record begins (the first is 1), and cells. Blank lines are left out."""
        reader = self._reader
        while True:
            self.size = 0
            self._begin = line = reader.line_num + 1
            try:
                record = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise _unreadable(line, str(error)) from error
            if record and (record[0].strip() or "".join(record).strip()):
                yield line, record

    def _lines(self) -> Iterator[str]:
        """Lines with their ends, as the csv module wants them."""
        read = self._text.readline
        while line := read(MAX_RECORD + 1):
            self.size += len(line)
            if self.size > MAX_RECORD:
                raise _unreadable(self._begin, f"it is longer than {MAX_RECORD} characters")
            yield line


class _Resumed(io.RawIOBase):
    """A stream from which `head` has been read already, from its beginning."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        super().__init__()
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]  # the base says Buffer: 3.12 only
        block = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(block) :]
        buffer[: len(block)] = block
        return len(block)


def _read_sample(stream: BinaryIO) -> bytes:
    sample = b""
    while len(sample) < SAMPLE_BYTES and (block := stream.read(SAMPLE_BYTES - len(sample))):
        sample += block
    return sample


def _refuse_binary(sample: bytes) -> None:
    known = {b"PK\x03\x04": "an Excel workbook or a zip archive", b"\xd0\xcf\x11\xe0": "an old Excel workbook",
             b"\x1f\x8b": "a gzip archive", b"%PDF": "a PDF document"}  # fmt: skip
    for magic, what in known.items():
        if sample.startswith(magic):
            raise PermanentError(f"This file is {what}, not CSV text. Save it as CSV.", code="import_not_text")


def _detect_delimiter(sample: str, score: Callable[[list[str]], int]) -> tuple[str, bool]:
    """The delimiter, and whether the file's first line says it."""
    if sample[: len(_HINT)].lower() == _HINT and sample[len(_HINT) + 1 : len(_HINT) + 2] in {"\r", "\n"}:
        return sample[len(_HINT)], True
    ranked = []
    for delimiter in _DELIMITERS:
        header: list[str] = []
        with suppress(csv.Error):  # an over-long cell is told when it is read for good
            header = next(filter(any, csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)), [])
        ranked.append((score(header), len(header), -_DELIMITERS.index(delimiter), delimiter))
    return max(ranked)[-1], False


def _unreadable(line: int, why: str) -> PermanentError:
    return PermanentError(
        f"The record that begins on line {line} cannot be read: {why}. Is a quotation mark before it not closed?",
        code="import_record_too_long",
    )
