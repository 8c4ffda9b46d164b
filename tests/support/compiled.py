"""The same tests hold for RETTER compiled (`make test-compiled`), but for those that patch it."""

from dataclasses import fields
from typing import Any

import pytest

from retter.telemetry.build import is_compiled

# What is compiled calls its own functions and knows its constants: nobody puts others in place.
replaces_parts = pytest.mark.skipif(is_compiled(), reason="replaces parts that are compiled")
# Nor are lines traced.
counts_lines = pytest.mark.skipif(is_compiled(), reason="counts lines of Python")


def attributes(cls: Any) -> list[str]:
    """Return the names of a head's attributes: those of a form's head are made when read."""
    how_made = {"form", "values", "made_fields", "made_forward", "soft"}
    names = [field.name for field in fields(cls) if field.name not in how_made]
    return [*names, "fields", "forward"] if "made_fields" in cls.__annotations__ else names
