"""Message templates: `{{name}}` variables, found, checked and filled in.

A variable is a contact's field: `{{name}}`, `{{phone}}`, or a custom field such as `{{order_id}}`, which may also be
written `{{custom.order_id}}`. Spaces inside the braces do not matter. There is nothing else: no expressions, no
filters, no escapes. What a value contains is text, never looked at again: a contact whose name is `{{phone}}` is
greeted with those nine characters.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from core.errors import PermanentError

MAX_TEXT = 4096
"""Most characters in a WhatsApp text message (Cloud API, text object)."""

MAX_PARAMETER = 1024
"""Most characters in a parameter: those of a whole WhatsApp template's body (Cloud API, template components)."""

_VARIABLE = re.compile(r"\{\{[ \t]*(?:custom\.)?(\w+)[ \t]*\}\}")
_STRAY = re.compile(r"\{\{|\}\}")
# C0 and C1 but for line feed and tab: no messenger shows them and JSON peers choke on some.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a template cannot be sent.

    Attributes:
        code: `malformed_braces`, `unknown_variable`, `text_too_long` or `text_empty`.
        message: What is wrong and where, for people.
        position: Offset in characters in the text that has the problem, counted from 0.
    """

    code: str
    message: str
    position: int = 0


class CompiledText:
    """A text whose variables have been found.

    Attributes:
        variables: Names of the variables, each once, in the order in which they appear.
    """

    def __init__(self, text: str) -> None:
        pieces = _VARIABLE.split(text)
        self.variables = tuple(dict.fromkeys(pieces[1::2]))
        # A names-to-values %-format: filled in by one call in C that reads no value again.
        pieces[::2] = [piece.replace("%", "%%") for piece in pieces[::2]]
        pieces[1::2] = [f"%({name})s" for name in pieces[1::2]]
        self._format = "".join(pieces)

    def render(self, values: Mapping[str, str]) -> str:
        """The text with `values` in it.

        Raises:
            PermanentError: `template_variable_missing`: a variable has no value or an empty one.
        """
        for name in self.variables:
            if not values.get(name):
                raise PermanentError(
                    f"There is no value for {{{{{name}}}}}. Give the contact one, or the template a default.",
                    code="template_variable_missing",
                )
        return self._format % values


class Text(BaseModel):
    """A text message in a template's `content`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["text"] = "text"
    body: str

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that may hold variables."""
        return (self.body,)


class ProviderTemplate(BaseModel):
    """A message template that the provider has approved, with the texts that fill its numbered parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["template"] = "template"
    name: str = Field(min_length=1)
    language: str = Field(min_length=2)
    parameters: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text that may hold variables."""
        return self.parameters


Content = Annotated[Text | ProviderTemplate, Field(discriminator="kind")]
_CONTENT: TypeAdapter[Text | ProviderTemplate] = TypeAdapter(Content)


@dataclass(frozen=True)
class Template:
    """A message with variables, compiled once and rendered often.

    Attributes:
        content: The message; `Template.parse` makes it from the JSON of `templates.content`.
        defaults: Variable to the value used where a contact has none.
    """

    content: Text | ProviderTemplate
    defaults: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, content: object, defaults: Mapping[str, str] | None = None) -> "Template":
        """From decoded JSON: `{"kind": "text", …}` or `{"kind": "template", …}`; else pydantic's ValidationError."""
        return cls(_CONTENT.validate_python(content), dict(defaults or {}))

    @cached_property
    def _compiled(self) -> tuple[CompiledText, ...]:
        return tuple(CompiledText(text) for text in self.content.texts)

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Names of all variables, each once, in the order in which they appear."""
        return tuple(dict.fromkeys(name for text in self._compiled for name in text.variables))

    def validate(self, known_fields: Collection[str]) -> list[Problem]:
        """What stands against sending it to contacts that have `known_fields`; an empty list is a good template."""
        return [problem for text in self.content.texts for problem in validate(text, known_fields, self.defaults)]

    def render(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """One text for each of `content.texts`: the body, or the parameters in order.

        Args:
            values: Field to value of one contact; empty values count as missing and get their default. Values of
                parameters lose line breaks, tabs and repeated spaces, which WhatsApp refuses there (error 132018).

        Raises:
            PermanentError: `template_variable_missing` or `message_too_long`; only this recipient is concerned.
        """
        if self.defaults:
            values = {**self.defaults, **{name: value for name, value in values.items() if value}}
        texts = [text.render(values) for text in self._compiled]
        if self.content.kind == "text":
            return (_bounded(_without_control(texts[0]), MAX_TEXT),)
        return tuple(_bounded(" ".join(_without_control(text).split()), MAX_PARAMETER) for text in texts)


def extract(text: str) -> tuple[str, ...]:
    """Names of the variables in `text`, each once, in the order in which they appear."""
    return tuple(dict.fromkeys(_VARIABLE.findall(text)))


def render(text: str, values: Mapping[str, str]) -> str:
    """`text` with `values` in it, once; to render often, keep a `CompiledText` or a `Template`."""
    return CompiledText(text).render(values)


def validate(text: str, known_fields: Collection[str], defaults: Iterable[str] = ()) -> list[Problem]:
    """What stands against sending `text`, in the order of its positions; an empty list when nothing does.

    Args:
        text: With variables.
        known_fields: Names that contacts may have a value for.
        defaults: Names that have a value anyway.
    """
    known = {*known_fields, *defaults}
    problems = [
        Problem("unknown_variable", f"No contact has a field {found[1]}, and it has no default.", found.start())
        for found in _VARIABLE.finditer(text)
        if found[1] not in known
    ]
    blanked = _VARIABLE.sub(lambda found: " " * len(found[0]), text)
    problems += [
        Problem(
            "malformed_braces",
            f"{stray[0]} at character {stray.start()} belongs to no variable; one is written {{{{name}}}}.",
            stray.start(),
        )
        for stray in _STRAY.finditer(blanked)
    ]
    literal = len(_VARIABLE.sub("", text))
    if literal > MAX_TEXT:
        problems.append(Problem("text_too_long", f"{literal} characters without values; {MAX_TEXT} are allowed."))
    if not text.strip():
        problems.append(Problem("text_empty", "There is no text to send."))
    return sorted(problems, key=lambda problem: problem.position)


def _without_control(text: str) -> str:
    return _CONTROL.sub("", text) if _CONTROL.search(text) else text


def _bounded(text: str, limit: int) -> str:
    if len(text) > limit:
        raise PermanentError(
            f"The text is {len(text)} characters long with this contact's values; {limit} are allowed.",
            code="message_too_long",
        )
    return text
