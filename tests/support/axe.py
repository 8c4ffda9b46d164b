"""axe-core, which looks for barriers in a page (WCAG 2.2): RETTER itself brings none of it."""

from pathlib import Path

import axe_playwright_python


def axe_source() -> str:
    """Return the source of axe-core."""
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
