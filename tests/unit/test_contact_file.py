"""Contact files of any spelling are read row by row in bounded memory (JOB-04; SECURITY: bombs in uploads)."""

import csv
import io
import tracemalloc
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import PermanentError
from domain.contact_columns import field_name, name_columns
from domain.contact_file import MAX_CELL, ContactFile, Row

SAMPLE = Path(__file__).parents[1] / "data" / "contacts_10k.csv"
TEXT = "phone,name,city\n+14155552671,José Müller,Besançon\n+14155552672,Zoë,Malmö\n"


class Endless(io.RawIOBase):
    """A head, then `filler` until `size` bytes have been read; never more than asked for is in memory."""

    def __init__(self, head: bytes, filler: bytes, size: int) -> None:
        self.head, self.filler, self.left, self.offset = head, filler, size, 0

    def read(self, count: int = -1) -> bytes:
        assert count >= 0, "an unbounded read"
        if self.head:
            block, self.head = self.head[:count], self.head[count:]
            return block
        count = min(count, self.left)
        self.left -= count
        begin, self.offset = self.offset, (self.offset + count) % len(self.filler)
        return (self.filler * (count // len(self.filler) + 2))[begin : begin + count]


@contextmanager
def peak_below(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def rows(content: str | bytes, **options) -> list[Row]:
    data = content.encode() if isinstance(content, str) else content
    return list(ContactFile(io.BytesIO(data), **options))


def cells(content: str | bytes, **options) -> list[dict[str, str]]:
    return [row.cells for row in rows(content, **options)]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"],
)
def test_encoding_is_detected(encoding):
    assert [row["name"] for row in cells(TEXT.encode(encoding))] == ["José Müller", "Zoë"]


@pytest.mark.parametrize(
    ("encoding", "name"), [("cp1251", "Александр Иванов Москва"), ("shift_jis", "山田 太郎 東京都 渋谷区")]
)
def test_other_encodings_are_told_by_their_letters(encoding, name):
    content = "phone,name\n" + "".join(f"+1415555{n},{name}\n" for n in range(2600, 2640))
    assert cells(content.encode(encoding))[7]["name"] == name


def test_bytes_that_are_not_utf_8_far_into_the_file_are_read_as_cp1252():
    good = "phone,name\n" + "+14155552671,Ann\n" * 10_000
    content = good.encode() + "+14155552672,Zoë\n".encode("cp1252") + "+14155552673,Zoé\n".encode()
    assert [row["name"] for row in cells(content)[-2:]] == ["Zoë", "Zoé"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_detected(delimiter):
    content = TEXT.replace(",", delimiter).replace("José Müller", '"Müller, José; Dr|"')
    assert cells(content)[0] == {"phone": "+14155552671", "name": "Müller, José; Dr|", "city": "Besançon"}


def test_delimiter_hint_of_excel_is_obeyed_and_counts_as_a_line():
    assert rows("sep=;\nphone;name,full\n+14155552671;a,b\n")[0] == Row(
        3, {"phone": "+14155552671", "name_full": "a,b"}, None
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_numbers_are_right_with_quoted_line_breaks_and_blank_lines(end):
    lines = ["", "phone,name", '1,"a', 'b"', "", "   ", ",", "2,c", '"3","d', "", 'e"', "4,f"]
    got = rows(end.join(lines))
    assert [(row.line, row.cells["phone"]) for row in got] == [(3, "1"), (8, "2"), (9, "3"), (12, "4")]
    assert got[0].cells["name"] == f"a{end}b"


def test_rows_of_another_width_are_reported_and_empty_cells_at_the_end_are_not():
    got = rows("phone,name\n1\n2,b,c\n3,c,,\n4,d\n")
    assert [row.problem and (row.problem.reason, row.problem.value) for row in got] == [
        ("column_count", "1"),
        ("column_count", "2,b,c"),
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Mobile Number", "phone"), ("Phone", "phone"), ("WhatsApp", "phone"), ("TEL.", "phone"), ("Teléfono", "phone"),
        ("E-mail", "email"), ("Email Address", "email"), ("Full Name", "name"), (" name ", "name"), ("Tags", "tags"),
        ("First Name", "first_name"), ("Order ID", "order_id"), ("Straße", "strasse"), ("город", "город"),
    ],
)  # fmt: skip
def test_headers_are_recognized(header, name):
    assert name_columns([header]) == [name]


def test_likeliest_of_several_columns_gets_the_field_and_names_are_unique():
    assert name_columns(["Telephone", "Mobile", "phone", "x", "X", ""]) == [
        "telephone", "phone", "phone_2", "x", "x_2", "column_6",
    ]  # fmt: skip
    assert name_columns(["a", "b", "phone"], {"a": "phone", "b": ""}) == ["phone", "", "phone_2"]


def test_mapped_and_left_out_columns():
    got = cells(
        "Nummer 1,secret,phone\n+14155552671,x,y\n", mapping={"Nummer 1": "phone", "secret": "", "phone": "fax"}
    )
    assert got == [{"phone": "+14155552671", "fax": "y"}]


def test_field_names_can_be_variables_of_templates():
    assert field_name("  Last order: Date (UTC) ") == "last_order_date_utc"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "import_empty"),
        (b"\n\n  \n", "import_empty"),
        (b"PK\x03\x04...", "import_not_text"),
        (b"name,city\nx,y\n", "import_no_contact_column"),
        (b"+14155552671,Ann\n", "import_no_contact_column"),
        (b"phone" + b"," * 900_000, "import_too_many_columns"),
    ],
)
def test_file_that_is_no_contacts_file_is_refused(content, code):
    with pytest.raises(PermanentError) as caught:
        rows(content)
    assert caught.value.code == code


def test_nul_and_long_cells_cost_their_row_only():
    got = rows(f"phone,name\n1,a\0b\n2,{'x' * (MAX_CELL + 1)}\n3,{'y' * MAX_CELL}\n")
    assert [row.problem and row.problem.reason for row in got] == ["nul_character", "cell_too_long", None]
    assert all(len(row.problem.value) <= 200 and "\0" not in row.problem.value for row in got if row.problem)


@pytest.mark.parametrize(
    ("head", "filler"),
    [
        (b"phone\n1\n", b"x"),  # one line of a gigabyte
        (b"phone\n1\n", b",,,,,,,,"),  # hundreds of millions of columns
        (b'phone\n1\n"', b"x\n"),  # a quotation mark that is never closed
        (b"phone\n1\n", b'"\n",'),  # cells and lines short, the record endless
        (b"phone\n1\n", b"\xff\xfe\x00"),
    ],
)
def test_bombs_end_with_an_error_that_names_the_line_in_bounded_memory(head, filler):
    with (
        peak_below(64 * 2**20),
        pytest.raises(PermanentError, match="line 3 ") as caught,
    ):
        deque(ContactFile(Endless(head, filler, 2**30)), maxlen=0)
    assert caught.value.code == "import_record_too_long"


def test_memory_does_not_grow_with_the_rows():
    line = b"+14155552671,Ann Lee,Rome\n"
    with peak_below(2 * 2**20):
        count = sum(1 for _ in ContactFile(Endless(b"phone,name,city\n", line, len(line) * 100_000)))
    assert count == 100_000


def test_sample_is_read_as_the_csv_module_reads_it():
    with SAMPLE.open("rb") as stream:
        ours = [list(row.cells.values()) for row in ContactFile(stream)]
    with SAMPLE.open(encoding="utf-8-sig", newline="") as stream:
        theirs = [list(map(str.strip, record)) for record in csv.reader(stream) if record][1:]
    assert ours == theirs


CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(CELL, CELL), max_size=10))
@settings(deadline=None)
def test_what_the_csv_module_writes_comes_back(records):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("phone", "name"), *records])
    expected = [(a.strip(), b.strip()) for a, b in records if (a + b).strip()]
    assert [tuple(row.cells.values()) for row in rows(text.getvalue())] == expected


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_are_rows_or_a_clear_error(content):
    with suppress(PermanentError):
        rows(b"phone,name\n" + content)
