"""`retter config`: a file of settings to begin with, and its schema for editors.

Exit codes: 0 done, 1 the file could not be written, 2 wrong arguments.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from retter.config.output import put
from retter.config.template import json_schema, toml_template
from retter.control.parser import Parser

EXIT_OK = 0
EXIT_FAILED = 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of `retter config`."""
    found = Parser(
        prog="retter config",
        description="Write a file of settings to begin with, or its schema for editors.",
        epilog="retter --config FILE --check-config checks a file.",
        allow_abbrev=False,
    )
    found.add_argument(
        "what",
        metavar="ACTION",
        choices=("init", "schema"),
        help="init: a TOML file with every setting, explained, at its default. "
        "schema: the JSON Schema of that file",
    )
    found.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="the file to write; an existing file is never overwritten (default: standard output)",
    )
    return found


def main(arguments: Sequence[str]) -> int:
    """Run `retter config` and return the exit code."""
    options = parser().parse_args(arguments)
    if options.what == "init":
        text = toml_template()
    else:
        text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if options.file is None:
        put(text)
        return EXIT_OK
    try:
        with open(options.file, "x", encoding="utf-8") as file:
            _fill(file, text)
    except FileExistsError:
        sys.stderr.write(f"retter config: {options.file} exists; give another name or remove it\n")
        return EXIT_FAILED
    except OSError as error:
        sys.stderr.write(f"retter config: {options.file}: {error.strerror}\n")
        return EXIT_FAILED
    put(f"written: {options.file}\n")
    return EXIT_OK


def _fill(file: TextIO, text: str) -> None:
    """Write a new file. If that fails, there is none: a part would be taken for the whole."""
    try:
        file.write(text)
        file.flush()
    except OSError:
        os.unlink(file.name)
        raise
