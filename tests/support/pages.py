"""The code blocks and commands in the pages of the documentation."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Final

import retter

ROOT: Final = Path(__file__).parents[2]
# In the checkout, or where it is installed: the tests then stand alone (`make test-wheel`).
PACKAGE: Final = Path(retter.__file__).parent


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Return each code block as (language, text); an indented one has no language."""
    text = page.read_text()
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield language, body
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for body in re.findall(r"(?:^\n)((?:^    .*\n|^\n(?=    ))+)", outside, re.MULTILINE):
        yield "", re.sub(r"^    ", "", body, flags=re.MULTILINE)


def command_lines(page: Path) -> Iterator[list[str]]:
    """Return every command that begins with retter, as words."""
    for language, text in blocks(page):
        if language not in ("", "sh"):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r" && |; ", line.removeprefix("$ ")):
                words = shlex.split(part, comments=True) if part.startswith("retter ") else []
                if words:
                    yield list(takewhile(lambda word: word not in (">", ">>"), words[1:]))
