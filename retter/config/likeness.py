"""What a misspelt word may have been meant to be, for the complaint about it."""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import argparse


def nearest(word: str, known: Collection[str], likeness: float = 0.6) -> str | None:
    """Return the known word that looks most like this one, or None if none looks like it."""
    import difflib  # only needed after a mistake

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=likeness)), None)


def nearest_flag(flag: str, flags: Collection[str]) -> str | None:
    """Return the known option that looks most like this one."""
    # All begin with --, which says nothing about likeness.
    names = {known.lstrip("-"): known for known in flags}
    word = flag.lstrip("-")
    longer = [name for name in names if word and name.startswith(word)]
    # No command takes an abbreviation: the next new option would change what it stands for.
    guess = longer[0] if len(longer) == 1 else nearest(word, names)
    return names[guess] if guess else None


def hint(parser: "argparse.ArgumentParser", message: str) -> str:
    """Return what to add to a complaint of argparse: what there is instead."""
    what, _, names = message.partition(": ")
    if what == "unrecognized arguments":
        word = names.split(" ")[0].partition("=")[0]
        guess = nearest_flag(word, set(_flags(parser))) if word.startswith("-") else None
        return f"; did you mean {guess}?" if guess else f"; see {parser.prog} --help"
    if what == "the following arguments are required":
        missing = names.split(", ")
        for action in parser._actions:  # argparse has no public way to list them
            if action.choices and (action.metavar or action.dest) in missing:
                return f" ({', '.join(map(str, action.choices))})"
    return ""


def _flags(parser: "argparse.ArgumentParser") -> Iterator[str]:
    """Return the options of a parser, and those of the actions that it has."""
    for action in parser._actions:
        yield from action.option_strings
        choices = cast("object", action.choices)
        if isinstance(choices, dict):
            for part in cast("Mapping[str, argparse.ArgumentParser]", choices).values():
                yield from _flags(part)
