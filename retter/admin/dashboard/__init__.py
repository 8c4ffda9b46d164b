"""The dashboard: one page without a second request, joined from the three files beside this one.

The page may only run its own script and connect to its own listener. Its Content-Security-Policy
names script and style by their hashes, so that injected markup can neither run nor load anything.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Page(NamedTuple):
    """A document, and the Content-Security-Policy to send with it."""

    html: bytes
    content_security_policy: str


@cache
def build() -> Page:
    """Read the three files and join them, once, at the first request for the page."""
    here = Path(__file__).parent
    style, script, html = (
        (here / name).read_text("utf-8") for name in ("page.css", "page.js", "page.html")
    )
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "connect-src 'self'",
            "img-src data:",  # the icon, which shows the state
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",  # against clickjacking
            "require-trusted-types-for 'script'",
        ]
    )
    html = html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    return Page(html.encode(), policy)


def _hash(text: str) -> str:
    """Return a source expression for inline text (CSP level 3, section 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
