"""The site: each page is in its contents, and links between pages stay links."""

import re

import pytest

from docs.site import PAGES, ROOT, with_links_of_the_site

CONTENTS = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]


def test_every_page_is_in_the_contents_once() -> None:
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(re.findall(r": (\S+\.md)$", CONTENTS, re.MULTILINE)) == sorted(
        there | set(PAGES.values())
    )


@pytest.mark.parametrize(
    ("at_top", "written", "in_site"),
    [
        (True, "[a](docs/limits.md#slow)", "[a](limits.md#slow)"),
        (True, "![a](docs/fairness.svg)", "![a](fairness.svg)"),
        (True, "[a](docs/README.md)", "[a](index.md#documentation)"),
        (True, "[a](LICENSE)", "a"),
        (True, "[a](#five)", "[a](#five)"),
        (False, "[a](../README.md#five)", "[a](index.md#five)"),
        (False, "[a](../ARCHITECTURE.md)", "[a](ARCHITECTURE.md)"),
        (False, "[a](limits.md)", "[a](limits.md)"),
        (False, "[`x`](../retter/cli.py)", "`x`"),
        (False, "[a](https://h11.readthedocs.io)", "[a](https://h11.readthedocs.io)"),
        (False, "```\n[a](../README.md)\n```", "```\n[a](../README.md)\n```"),
    ],
)
def test_links_lead_to_pages_of_the_site(at_top: bool, written: str, in_site: str) -> None:
    folder = ROOT if at_top else ROOT / "docs"
    assert with_links_of_the_site(written, folder) == in_site
