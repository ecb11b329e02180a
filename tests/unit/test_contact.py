"""Rows become contacts or reasons (JOB-04), and cells of reports are no formulas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.contact import Contact, ImportOptions, Rejected, read, split_tags
from domain.contact_file import Problem, Row
from domain.spreadsheet import safe_cell

OPTIONS = ImportOptions()


def of(**cells: str) -> Contact | Rejected:
    return read(Row(2, cells, None), OPTIONS)


def test_valid_row_becomes_a_contact_with_its_other_columns_as_custom_fields():
    assert of(phone="+1 415 555 2671", email="A@Example.com", name="Ann", tags="a|b", city="Oslo", empty="") == Contact(
        2, "+14155552671", "A@example.com", "Ann", ["a", "b"], {"city": "Oslo"}
    )


def test_first_and_last_name_make_the_name_where_there_is_none():
    contact = of(email="a@example.com", first_name="Ann", last_name="Lee")
    assert isinstance(contact, Contact)
    assert (contact.name, contact.custom) == ("Ann Lee", {"first_name": "Ann", "last_name": "Lee"})


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        ({"name": "x"}, Problem("phone", "", "missing_contact")),
        ({"phone": "n/a", "email": "bad"}, Problem("phone", "n/a", "invalid_phone")),
        ({"phone": "+14155552671", "email": "bad"}, Problem("email", "bad", "invalid_email")),
        ({"phone": "9" * 5000}, Problem("phone", "9" * 200, "invalid_phone")),
    ],
)
def test_first_thing_wrong_is_the_reason(cells, problem):
    assert of(**cells) == Rejected(2, problem)


def test_malformed_row_keeps_its_problem():
    problem = Problem("", "1,2", "column_count")
    assert read(Row(9, {"phone": "+14155552671"}, problem), OPTIONS) == Rejected(9, problem)


@pytest.mark.parametrize("text", ["a|b", "a, b", " a ;b;", "a,a|b;;b"])
def test_tags_are_split_and_unique(text):
    assert split_tags(text) == ["a", "b"]


def test_options_are_camel_case_in_the_api_and_nothing_else_is_taken():
    assert ImportOptions.model_validate({"updateExisting": True, "validatePhone": False}) == ImportOptions(
        update_existing=True, validate_phone=False
    )
    with pytest.raises(ValueError, match="updateexisting"):
        ImportOptions.model_validate({"updateexisting": True})


@pytest.mark.parametrize("value", ["=1", "+1", "-1", "@a", "\t=1", "\r=1", " =1", "\n=1", "\uff1d1", "+49 151"])
def test_formulas_become_text(value):
    assert safe_cell(value) == f"'{value}"


@given(st.text())
def test_no_cell_is_a_formula_and_safe_ones_stay(value):
    safe = safe_cell(value)
    assert not safe.lstrip().startswith(("=", "+", "-", "@", "\t", "\r"))
    assert safe.removeprefix("'") == value.removeprefix("'")
