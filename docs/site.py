"""Hooks of mkdocs for `make site`: the pages at the top of the project become pages of the site.

They stand at the top because people look for them there; README.md is the first page of the site.
Links between them and docs/ are made relative to the site, and links to source files lose their
target, since the site has no copy of the source.
"""

import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]

# The file at the top of the project -> its name in the site.
PAGES: Final = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "ARCHITECTURE.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "CHANGELOG.md": "CHANGELOG.md",
}

_LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the top of the project (mkdocs' event)."""
    from mkdocs.structure.files import File

    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make the links of a page those of the site (mkdocs' event)."""
    at_top = page.file.src_uri in PAGES.values()
    return with_links_of_the_site(markdown, ROOT if at_top else ROOT / "docs")


def with_links_of_the_site(markdown: str, folder: Path) -> str:
    """Return a page of a folder with links as they are in the site.

    Links in code blocks stay as they are.
    """
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        [
            part if part.startswith("```") else _LINK.sub(lambda m: _link(m, folder), part)
            for part in parts
        ]
    )


def _link(match: re.Match[str], folder: Path) -> str:
    image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
    if not target or "://" in target or target.startswith("mailto:"):
        return match[0]
    path = (folder / target).resolve()
    if path.parent == ROOT and path.name in PAGES:
        return f"{image}[{text}]({PAGES[path.name]}{anchor})"
    if path.is_relative_to(ROOT / "docs") and path.is_file() and path.name != "README.md":
        return f"{image}[{text}]({path.relative_to(ROOT / 'docs')}{anchor})"
    if path == ROOT / "docs" / "README.md":
        return f"[{text}](index.md#documentation)"
    return text  # a source file
