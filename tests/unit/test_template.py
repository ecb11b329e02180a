"""Templates: variables found, checked and filled in; text from users is never evaluated (JOB-05)."""

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import PermanentError
from domain.template import MAX_PARAMETER, MAX_TEXT, CompiledText, Template, extract, render, validate

# Values and texts that template engines, shells, databases and browsers have been known to run.
INJECTIONS = [
    "{{name}}", "{{ 7*7 }}", "{% raw %}", "{%for x in y%}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "{0}", "{name}",
    "{0.__class__}", "{{config}}", "{{''.__class__.__mro__}}", "%s", "%(phone)s", "%%", "%n", "$name", "`id`", "\\1",
    "\\g<0>", "<script>alert(1)</script>", "'; drop table contacts; --", "=HYPERLINK(1)", "{{custom.phone}}", "}}{{",
]  # fmt: skip


def text(body: str, **defaults: str) -> Template:
    return Template.parse({"kind": "text", "body": body}, defaults)


def test_variables_are_found_once_each_in_order_with_any_spaces():
    found = extract("{{b}} {{ a }} {{b}} {{\tcustom.order_id }} {{straße}} {{2nd}} { {x} } {{x y}} {{}}")
    assert found == ("b", "a", "order_id", "straße", "2nd")


def test_text_is_rendered():
    assert render("Hi {{name}}, 100% {{ custom.city }}{{name}}!", {"name": "Zoë", "city": "Oslo"}) == (
        "Hi Zoë, 100% OsloZoë!"
    )


@pytest.mark.parametrize("value", INJECTIONS)
def test_values_stay_literal(value):
    assert render("a {{name}} b {{phone}}", {"name": value, "phone": "+1"}) == f"a {value} b +1"


@pytest.mark.parametrize("body", [each for each in INJECTIONS if not extract(each)])
def test_nothing_but_variables_is_special_in_a_text(body):
    assert render(f"{body}|{{{{name}}}}", {"name": "Ann", "phone": "+1", "config": "x"}) == f"{body}|Ann"


@given(st.lists(st.one_of(st.text(), st.sampled_from(INJECTIONS)), min_size=3, max_size=3))
@settings(deadline=None)
def test_any_values_come_out_as_they_went_in(values):
    a, b, c = (value or "-" for value in values)
    assert render("{{a}}|{{b}}|{{c}}", {"a": a, "b": b, "c": c}) == f"{a}|{b}|{c}"


@given(st.text())
def test_any_text_can_be_compiled_and_has_all_its_other_characters_kept(body):
    compiled = CompiledText(body)
    assert compiled.variables == extract(body)
    if not compiled.variables:
        assert compiled.render({}) == body


@pytest.mark.parametrize("values", [{}, {"name": ""}, {"Name": "Ann"}])
def test_missing_or_empty_value_is_a_permanent_error_that_names_the_variable(values):
    with pytest.raises(PermanentError, match=r"\{\{name\}\}") as caught:
        text("Hi {{name}}").render(values)
    assert caught.value.code == "template_variable_missing"


def test_default_is_used_where_the_contact_has_no_value_or_an_empty_one():
    template = text("Hi {{name}}", name="friend")
    assert template.render({}) == template.render({"name": ""}) == ("Hi friend",)
    assert template.render({"name": "Ann"}) == ("Hi Ann",)


def test_problems_are_told_before_anything_is_sent():
    problems = validate("Hi {{name}} {{ 7*7 }} {{nope}} {{city}}", ["name"], {"city": "Oslo"})
    assert [(problem.code, problem.position) for problem in problems] == [
        ("malformed_braces", 12),
        ("malformed_braces", 19),
        ("unknown_variable", 22),
    ]
    assert "nope" in problems[-1].message


@pytest.mark.parametrize(("body", "code"), [("", "text_empty"), (" \n", "text_empty"), ("x" * 4097, "text_too_long")])
def test_text_that_no_recipient_could_get_is_a_problem(body, code):
    assert [problem.code for problem in text(body).validate(["name"])] == [code]


def test_good_template_has_no_problems():
    assert text("Hi {{name}} {x} } {", name="friend").validate([]) == []


def test_text_is_too_long_only_with_its_values():
    template = text("{{name}}")
    assert template.render({"name": "x" * MAX_TEXT}) == ("x" * MAX_TEXT,)
    with pytest.raises(PermanentError) as caught:
        template.render({"name": "x" * (MAX_TEXT + 1)})
    assert caught.value.code == "message_too_long"


def test_provider_template_renders_its_parameters_in_order_and_in_one_line():
    content = {"kind": "template", "name": "order", "language": "en", "parameters": ["{{name}}", "No. {{order_id}}"]}
    template = Template.parse(content)
    assert template.variables == ("name", "order_id")
    assert template.render({"name": "Ann\n\tLee      x", "order_id": "7"}) == ("Ann Lee x", "No. 7")
    with pytest.raises(PermanentError):
        template.render({"name": "x" * (MAX_PARAMETER + 1), "order_id": "7"})


def test_control_characters_of_values_are_left_out_and_line_breaks_kept():
    assert text("{{name}}").render({"name": "A\x00n\x1bn\n\u202eLee\x85"}) == ("Ann\n\u202eLee",)


@pytest.mark.parametrize(
    "content", [{}, {"kind": "jinja", "body": "x"}, {"kind": "text"}, {"kind": "text", "body": "x", "more": 1}]
)
def test_content_of_another_shape_is_refused(content):
    with pytest.raises(pydantic.ValidationError):
        Template.parse(content)
