"""The same tests hold for RETTER compiled (`make test-compiled`), but for those that patch it."""

from dataclasses import fields
from typing import Any

import pytest

from retter.http.message import RequestHead
from retter.telemetry.build import is_compiled

# What is compiled calls its own functions and knows its constants: nobody puts others in place.
replaces_parts = pytest.mark.skipif(is_compiled(), reason="replaces parts that are compiled")
# Nor are lines traced.
counts_lines = pytest.mark.skipif(is_compiled(), reason="counts lines of Python")


_OF_REQUESTS = (
    "method", "target", "http11", "host", "fields", "framing", "content_length", "keep_alive",
    "expect_continue", "upgrade", "conditional", "forward", "identity_fields", "variant_key",
    "country", "ids", "soft_at", "accepts_events",
)  # fmt: skip


def attributes(cls: Any) -> list[str]:
    """Return the names of what a head tells: not those that say how it was made."""
    return [*_OF_REQUESTS] if cls is RequestHead else [field.name for field in fields(cls)]
