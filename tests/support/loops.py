"""Event loops for tests that run on each kind."""

import asyncio

import pytest


def plain_loop() -> asyncio.AbstractEventLoop:
    """Make asyncio's own loop."""
    return asyncio.SelectorEventLoop()


def uv_loop() -> asyncio.AbstractEventLoop:
    """Make uvloop's, or skip the test without it."""
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not installed")
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
