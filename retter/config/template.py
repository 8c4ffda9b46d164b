"""Files made from the declared settings: a TOML file to begin with, and its JSON Schema.

Pure functions of the declaration in settings.py. `retter config init` and `retter config schema`
print them.
"""

import json
import textwrap
from collections.abc import Iterator
from typing import Any, Final, cast

from retter.config import patterns
from retter.config.settings import SETTINGS, Setting

COLUMNS: Final = 80

# Stands in the template as a line in force, because no RETTER starts without it.
EXAMPLE_UPSTREAM: Final = ":8080"

SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_HEAD: Final = """\
# Settings of RETTER: retter --config FILE
#
# Each line that is commented out shows the default. Remove its # to change it.
# A TOML table ([section]) is not used: every setting stands at the top level.
# retter --config FILE --check-config shows what is in force and finds mistakes.
# SIGHUP makes a running RETTER read this file again.
"""


def in_file() -> tuple[Setting, ...]:
    """Return the settings that a file may hold: all but the one that names the file."""
    return tuple([setting for setting in SETTINGS if setting.name != "config"])


# The TOML file


def toml_template() -> str:
    """Return a TOML file with every setting, explained, at its default."""
    return _HEAD + "".join(_sections())


def _sections() -> Iterator[str]:
    group = None
    for setting in in_file():
        if setting.group is not group:
            group = setting.group
            yield f"\n\n# {group.title}\n{_comment(group.about)}"
        yield f"\n{_comment(_about(setting))}{_line(setting)}\n"


def _about(setting: Setting) -> str:
    # The text of a switch describes what its option does: of one that is on, the option turns off.
    return f"false: {setting.about}" if setting.default is True else setting.about


def _comment(text: str) -> str:
    return (
        textwrap.fill(
            text,
            COLUMNS,
            initial_indent="# ",
            subsequent_indent="# ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )


def _line(setting: Setting) -> str:
    if setting.name == "upstream":
        return f"upstream = {_toml(EXAMPLE_UPSTREAM)}"
    return f"#{setting.name} = {_toml(plain_default(setting))}"


def plain_default(setting: Setting) -> bool | float | str | list[str]:
    """Return the default as a file may hold it: TOML and JSON know no durations and no sizes."""
    value = setting.default
    if setting.kind.metavar in ("", "N", "N|auto", "SHARE"):
        return cast("bool | float", value)
    text = setting.kind.show(value)
    if setting.kind.many and value != ():
        return text.split(",") if not setting.kind.spaces_split_variable else text.split()
    return [] if text == "" and setting.kind.many else text


def _toml(value: bool | float | str | list[str]) -> str:
    # A JSON string is a TOML basic string (https://toml.io/en/v1.0.0#string), and so are numbers,
    # booleans and arrays of strings.
    return json.dumps(value, ensure_ascii=False)


# The schema


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the file, for editors and for checks before a start.

    A value that it refuses is refused at the start too. `--check-config` finds more: numbers with
    units that are out of bounds, settings that contradict each other, files that are missing.
    """
    return {
        "$schema": SCHEMA_DIALECT,
        "title": "Settings of RETTER",
        "type": "object",
        "additionalProperties": False,
        "required": ["upstream"],
        "properties": {setting.name: _property(setting) for setting in in_file()},
    }


def _property(setting: Setting) -> dict[str, Any]:
    return {
        "title": setting.group.title,
        "description": _about(setting),
        **_type(setting),
        **({} if setting.name == "upstream" else {"default": plain_default(setting)}),
    }


def _type(setting: Setting) -> dict[str, Any]:
    """Return what a value may be: everything that a file may hold there (`Kind.read`)."""
    kind, text = setting.kind, {"type": "string", "pattern": patterns.TEXT}
    low, high = kind.bounds
    bounds = {"minimum": low, "maximum": high}
    if setting.name in _ADDRESSES:
        text["pattern"] = _ADDRESSES[setting.name]
    match kind.metavar:
        case "":
            return {"type": ["boolean", "string"], "pattern": patterns.SWITCH}
        case "N":
            return {"type": ["integer", "string"], **bounds, "pattern": patterns.COUNT}
        case "N|auto":
            return {"type": ["integer", "string"], **bounds, "pattern": patterns.PROCESSES}
        case "TIME":
            return {
                "type": ["string", "number"], **bounds, "pattern": patterns.DURATION,
                "examples": ["1.5s", "200ms", "2m", "1h30m", 15],
            }  # fmt: skip
        case "SIZE":
            return {
                "type": ["string", "integer"], **bounds, "pattern": patterns.SIZE,
                "examples": ["64MiB", "64m", 65536],
            }  # fmt: skip
        case "SHARE":
            share = {"exclusiveMinimum": 0, "maximum": 1, "pattern": patterns.SHARE}
            return {"type": ["string", "number"], **share}
        case "BITS,BITS":
            pair = {"items": {"type": "integer"}, "minItems": 2, "maxItems": 2}
            return {"type": ["array", "string"], **pair, "pattern": patterns.BITS}
        case "CODES":
            code = {"type": ["integer", "string"], "minimum": 400, "maximum": 599}
            return {"type": ["array", "string"], "items": code}
        case _ if kind.many:
            least = {"minItems": 1} if setting.name == "listen" else {}
            return {**text, "type": ["array", "string"], "items": text, **least}
        case metavar if "|" in metavar:
            words = metavar.split("|")
            # The words by themselves, which editors offer; and as they may be written too.
            return {"anyOf": [{"enum": words}, {**text, "pattern": patterns.words(words)}]}
        case _:
            return text


_ADDRESSES: Final = {
    "listen": patterns.LISTEN,
    "upstream": patterns.UPSTREAM,
    "admin": patterns.ADMIN,
}
