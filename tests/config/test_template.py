"""The file to begin with, and its schema: they say what the settings are."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from retter.config.load import load
from retter.config.settings import SETTINGS, ConfigError, Settings
from retter.config.template import EXAMPLE_UPSTREAM, in_file, json_schema, toml_template

NAMES = [setting.name for setting in in_file()]


def uncommented() -> str:
    return re.sub(r"(?m)^#(?=[a-z_]+ = )", "", toml_template())


check = fastjsonschema.compile(json_schema(), use_default=False)


def settings_of(text: str, folder: Path) -> Settings:
    file = folder / "retter.toml"
    file.write_text(text)
    return load({"config": [str(file)]}, {}).settings


def test_the_file_as_it_is_sets_the_upstream_and_nothing_else() -> None:
    assert tomllib.loads(toml_template()) == {"upstream": EXAMPLE_UPSTREAM}


def test_every_setting_but_the_file_itself_stands_in_the_file() -> None:
    assert list(tomllib.loads(uncommented())) == NAMES
    assert set(NAMES) == {setting.name for setting in SETTINGS} - {"config"}


def test_all_lines_uncommented_are_the_defaults(tmp_path: Path) -> None:
    found = settings_of(uncommented(), tmp_path)
    for setting in in_file():
        if setting.name != "upstream":
            assert getattr(found, setting.field) == setting.default, setting.name


def test_no_line_is_wider_than_a_terminal_but_those_of_long_defaults() -> None:
    explanations = [line for line in toml_template().splitlines() if line.startswith("# ")]
    assert explanations
    assert max(map(len, explanations)) <= 80


def test_the_schema_takes_the_whole_file() -> None:
    check(tomllib.loads(uncommented()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drain", -1),
        ("drain", "soon"),
        ("drain", True),
        ("store_memory", "much"),
        ("circuit", "half"),
        ("headers", "maybe"),
        ("pool_size", -1),
        ("workers", 0.5),
        ("workers", "many"),
        ("access_log_sample", 2),
        ("ignore_params", [1]),
        ("dran", "1s"),
    ],
)
def test_the_schema_finds_what_a_start_would_find(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check({"upstream": ":8080", name: value})
    with pytest.raises(ConfigError):
        settings_of(f"upstream = ':8080'\n{name} = {json.dumps(value)}\n", tmp_path)


def test_the_schema_asks_for_an_upstream() -> None:
    with pytest.raises(fastjsonschema.JsonSchemaException, match="upstream"):
        check({})


def test_each_default_of_the_schema_fits_its_type() -> None:
    for name, one in json_schema()["properties"].items():
        if name != "upstream":  # which is required
            fastjsonschema.compile(one, use_default=False)(one["default"])
        assert one["description"], name
