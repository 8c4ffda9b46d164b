"""A request to the admin listener and its response, as the handlers see them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from json import dumps, loads
from typing import Any, cast
from urllib.parse import parse_qs

Fields = tuple[tuple[bytes, bytes], ...]

# Fields of a query or a form. A request to be explained has a few dozen header fields at most.
FORM_FIELDS_MAX = 256


class AdminError(Exception):
    """A request that gets an error response. The message is a sentence for the operator."""

    def __init__(self, status: int, message: str, *fields: tuple[str, str]) -> None:
        super().__init__(message)
        self.status = status
        self.fields = fields


@dataclass(frozen=True, slots=True)
class AdminRequest:
    """A whole request."""

    method: str
    path: str  # without the query
    query: str
    fields: Fields  # lower-case names
    body: bytes

    def first(self, name: bytes) -> str:
        """Return the first field of that lower-case name, or an empty str."""
        for field_name, value in self.fields:
            if field_name == name:
                return value.decode("latin-1")
        return ""

    def parameters(self) -> dict[str, list[str]]:
        """Return the parameters of the query and of the body (JSON or a form): texts by name.

        Raises:
            AdminError: 400 malformed, 415 neither JSON nor a form.
        """
        found = _form(self.query)
        if self.body:
            kind = self.first(b"content-type").partition(";")[0].strip().lower()
            if kind == "application/json":
                found |= _json_object(self.body)
            elif kind == "application/x-www-form-urlencoded":
                found |= _form(self.body.decode("latin-1"))
            else:
                raise AdminError(
                    415,
                    "the body is neither application/json nor application/x-www-form-urlencoded",
                    ("Accept-Post", "application/json"),
                )
        return found


def _form(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX)
    except ValueError:
        raise AdminError(400, f"more than {FORM_FIELDS_MAX} fields") from None


def _json_object(body: bytes) -> dict[str, list[str]]:
    try:
        value = loads(body)
    except (ValueError, RecursionError):
        raise AdminError(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise AdminError(400, "the body is not a JSON object")
    try:
        return {name: _texts(one) for name, one in cast("dict[str, object]", value).items()}
    except RecursionError:
        raise AdminError(400, "the body is nested too deeply") from None


def _texts(value: object) -> list[str]:
    found: list[str] = []
    _collect_texts(value, found)
    return found


def _collect_texts(value: object, found: list[str]) -> None:
    """Append the values of a JSON value as texts, including those of nested lists."""
    if isinstance(value, list):
        for one in cast("list[object]", value):
            _collect_texts(one, found)
    elif isinstance(value, str):
        found.append(value)
    elif value is not None and value is not False:
        found.append("true" if value is True else dumps(value))


@dataclass(frozen=True, slots=True)
class AdminAnswer:
    """A whole response. `fields` are sent in addition to those of every response."""

    status: int
    body: bytes
    content_type: str = "application/json"
    fields: tuple[tuple[str, str], ...] = ()


class LaterAnswer:
    """Returned by a handler whose answer comes later, if it has not come already."""

    def __init__(self) -> None:
        self.answer: AdminAnswer | None = None
        self._send: Callable[[AdminAnswer], None] = lambda answer: None

    def give(self, answer: AdminAnswer) -> None:
        """Give the answer."""
        self.answer = answer
        self._send(answer)

    def then(self, send: Callable[[AdminAnswer], None]) -> None:
        """Send the answer when it comes."""
        self._send = send


class EventStream:
    """Returned by a handler for a client that receives events from now on."""


Parameters = dict[str, list[str]]
"""The values of a query, a form or a JSON object: texts by name."""


def one(parameters: Parameters, name: str) -> str:
    """Return the one value of a parameter, or an empty str. Raises AdminError if there are more."""
    values = parameters.get(name, [])
    if len(values) > 1:
        raise AdminError(400, f"{name} is given {len(values)} times")
    return values[0] if values else ""


Answer = AdminAnswer | EventStream | LaterAnswer
Handler = Callable[[AdminRequest], Answer]
Routes = Mapping[str, Mapping[str, Handler]]
"""Path -> method -> handler. GET stands for HEAD as well."""


def json_answer(value: Any, status: int = 200, *fields: tuple[str, str]) -> AdminAnswer:
    """Answer with a JSON document."""
    return AdminAnswer(status, dumps(value).encode() + b"\n", fields=fields)


def error_answer(error: AdminError) -> AdminAnswer:
    """Return the response to a wrong request."""
    return json_answer({"error": str(error)}, error.status, *error.fields)
