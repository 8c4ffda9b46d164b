"""Chromium, by playwright: a page that is watched for everything that it must not do."""

import inspect
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from unittest.mock import patch

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

# The browser tells of every violation in an event of the document (CSP level 3, section 5).
WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
    (event) => window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
"""


class Watched:
    """A page, and what it did beyond showing itself."""

    def __init__(self, page: Any, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.add_init_script(WATCH_POLICY)
        page.on("console", lambda message: self._say(message.type, message.text))
        page.on("pageerror", lambda error: self._say("error", str(error)))
        page.on("request", self._look)

    def _say(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def _look(self, request: Any) -> None:
        if not request.url.startswith((self.origin + "/", "data:")):
            self.strangers.append(request.url)

    def check(self, *allowed: str) -> None:
        """Assert that nothing went wrong but what a test brought about itself."""
        said = [one for one in self.complaints if not any(text in one for text in allowed)]
        assert said == []
        assert self.strangers == []
        assert self.page.evaluate("window.violations") == []


def stack_without_source(context: int = 0) -> list[inspect.FrameInfo]:
    """Return what `inspect.stack` does, but for the lines of the source."""
    found: list[inspect.FrameInfo] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        found.append(
            inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None)
        )
        frame = frame.f_back
    return found


@contextmanager
def chromium() -> Iterator[Any]:
    """Start it without a window, or skip."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("chromium is not installed (Debian's package chromium brings it)")
    # Chromium's sandbox cannot be had by root, as in a container.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    # Playwright asks for the stack with every call, to name the caller in an error. To find the
    # source of fifty frames among thousands of modules was four fifths of what a test took.
    with (
        patch.object(inspect, "stack", stack_without_source),
        playwright.sync_playwright() as driver,
    ):
        browser = driver.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()
