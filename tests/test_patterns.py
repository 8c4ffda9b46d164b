"""No regular expression of the package goes back over what a stranger has sent.

Each pattern is found by itself: those compiled while the package is imported, whoever compiles
them and wherever they are kept, and those that functions name in their source. A pattern that is
neither is a failure, so that none escapes. Each then reads lines of 64 KiB that are made for it:
for every repetition in it, what leads there, the repeated a great many times, and an end that does
not fit.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

import retter
from tests.support.compiled import counts_lines
from tests.support.tracing import untraced
from tests.support.work import cpu_s_of

pytestmark = [counts_lines, untraced]  # in the source: what is compiled has the same patterns

PACKAGE = Path(retter.__file__).parent
LINE_BYTES = 64 * 1024
CPU_S_MAX = 0.005
# Longer and longer, so that what goes back is found out before it takes hours.
LENGTHS = (16, 24, 32, 40, 48, 56, 64, 512, 4096, LINE_BYTES)

MATCHING = {"match", "fullmatch"}
SEARCHING = {"search", "findall", "finditer", "split", "sub", "subn"}  # begin at every place
FUNCTIONS = {"compile", "template"} | MATCHING | SEARCHING


# -- finding them ---------------------------------------------------------------------------------


@dataclass
class Found:
    """One pattern, and how the package uses it."""

    pattern: str | bytes
    flags: int
    where: str
    methods: set[str] = field(default_factory=set)

    @property
    def ways(self) -> list[str]:
        """Of the methods, those that differ in what they cost."""
        searching = self.methods & SEARCHING
        last = [] if not searching else ["search"] if searching == {"search"} else ["findall"]
        return [*sorted(self.methods & MATCHING), *last]

    @property
    def compiled(self) -> "re.Pattern[Any]":
        return re.compile(self.pattern, self.flags)


# Imports everything with re's one way to a compiled pattern watched.
_WATCH = """
import importlib, json, pkgutil, re, sys
inner, found = re._compile, []
def watched(pattern, flags):
    frame = sys._getframe(2)        # who has called re.compile, or whichever it was
    compiled = inner(pattern, flags)
    module, text = frame.f_globals["__name__"], compiled.pattern
    if module.partition(".")[0] == "retter":
        text = text if isinstance(text, str) else list(text)
        found.append((module, frame.f_lineno, text, compiled.flags))
    return compiled
re._compile = watched
import retter
for module in pkgutil.walk_packages(retter.__path__, "retter."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps(found))
"""


@cache
def compiled_at_import() -> list[tuple[str, int, str | bytes, int]]:
    """Return module, line, pattern and flags of all that is compiled while all is imported."""
    done = subprocess.run(
        [sys.executable, "-c", _WATCH],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return [
        (module, line, bytes(pattern) if isinstance(pattern, list) else pattern, flags)
        for module, line, pattern, flags in json.loads(done.stdout)
    ]


@cache
def sources() -> dict[str, ast.Module]:
    """Return all modules of the package by name, parsed."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(["retter", *path.relative_to(PACKAGE).with_suffix("").parts])
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text(), str(path))
    return found


def _is_re_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr in FUNCTIONS
    )


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_re_call(node)]


@cache
def _uses() -> dict[str, list[tuple[str, str]]]:
    """Return by module which method is called of anything with which name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for module, tree in sources().items():
        uses = found[module] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in MATCHING | SEARCHING:
                owner = node.value
                name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                uses.append((name, node.attr))
    return found


def _methods_of(names: set[str], modules: Iterable[str]) -> set[str]:
    """Return the methods that are called of anything with one of these names."""
    return {method for module in modules for name, method in _uses()[module] if name in names}


def _usage(module: str, line: int) -> set[str]:
    """Return how the pattern that is compiled in this line is used; all ways if it is unclear."""
    tree = sources()[module]
    methods: set[str] = set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if not getattr(node, "lineno", line + 1) <= line <= getattr(node, "end_lineno", 0):
            continue
        if isinstance(node, ast.Attribute) and _is_re_call(node.value):  # re.compile(...).split
            methods.add(node.attr)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value and _calls(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    methods |= _methods_of(names, sources())
    for node in ast.walk(tree):  # one after the other of some in a tuple
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Name) and node.iter.id in names:
            methods |= _methods_of({ast.unparse(node.target)}, [module])
    return methods & (MATCHING | SEARCHING) or MATCHING | SEARCHING


@cache
def patterns() -> list[Found]:
    """Return all patterns of the package."""
    found: dict[tuple[str | bytes, int], Found] = {}
    for module, line, pattern, flags in compiled_at_import():
        one = Found(pattern, flags & ~re.UNICODE if isinstance(pattern, bytes) else flags, module)
        one = found.setdefault((pattern, flags), one)
        one.methods |= _usage(module, line)
    for module, tree in sources().items():
        for call in _calls(tree):
            if call.args and isinstance(call.args[0], ast.Constant):
                source = call.args[0].value
                assert isinstance(source, str | bytes)
                function = call.func.attr  # type: ignore[attr-defined]
                flags = 0
                for flag in [*call.args[1:], *[word.value for word in call.keywords]]:
                    if isinstance(flag, ast.Attribute) and flag.attr.isupper():
                        flags |= getattr(re, flag.attr)
                one = Found(source, flags, module)
                flags = one.compiled.flags
                one = found.setdefault((one.pattern, flags), one)
                one.methods |= {function} - {"compile", "template"} or _usage(module, call.lineno)
    return list(found.values())


def test_none_escapes() -> None:
    """Every call of re is either made while importing, or has its pattern in the source."""
    seen = {(module, line) for module, line, _, _ in compiled_at_import()}
    for module, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("re", "fnmatch", "glob"), f"{module} hides it from us"
            if isinstance(node, ast.Import):
                for name in node.names:
                    assert name.name not in ("fnmatch", "glob"), f"{module} hides it from us"
                    assert name.name != "re" or name.asname is None, f"{module} renames re"
        for call in _calls(tree):
            literal = call.args and isinstance(call.args[0], ast.Constant)
            lines = range(call.lineno, (call.end_lineno or call.lineno) + 1)
            at_import = any((module, line) in seen for line in lines)
            assert literal or at_import, f"{module}:{call.lineno}: nobody knows this pattern"
    assert len(patterns()) > 30


# -- lines made for them ---------------------------------------------------------------------------

# What is tried of a set of characters: what means something somewhere in HTTP.
_INTERESTING = ' \ta,";=\\0%:/.A-&\x80\r\nx'
_EXAMPLES_MAX = 6
_CATEGORIES = {
    code.CATEGORY_DIGIT: r"\d", code.CATEGORY_NOT_DIGIT: r"\D", code.CATEGORY_SPACE: r"\s",
    code.CATEGORY_NOT_SPACE: r"\S", code.CATEGORY_WORD: r"\w", code.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
_REPEATS = (code.MAX_REPEAT, code.MIN_REPEAT, code.POSSESSIVE_REPEAT)


def _is_in(character: str, items: Any) -> bool:
    negated = found = False
    for kind, value in items:
        if kind is code.NEGATE:
            negated = True
        elif kind is code.LITERAL:
            found = found or ord(character) == value
        elif kind is code.RANGE:
            found = found or value[0] <= ord(character) <= value[1]
        elif kind is code.CATEGORY:
            found = found or re.match(_CATEGORIES[value], character, re.ASCII) is not None
    return found is not negated


class Sampler:
    """Makes texts of a pattern's parts; `marks` are the characters that mean something in it."""

    def __init__(self, marks: list[str]) -> None:
        self._every = dict.fromkeys((*marks, *_INTERESTING, *map(chr, range(256))))

    def _members(self, items: Any) -> list[str]:
        found = [character for character in self._every if _is_in(character, items)]
        return [*found[:_EXAMPLES_MAX], *[one for one in found if one.isalnum()][:1]]

    def examples(self, tree: Any) -> list[str]:
        """Return some texts that a part of a pattern matches."""
        found = [""]
        for kind, value in tree:
            parts = [""]
            if kind is code.LITERAL:
                parts = [chr(value)]
            elif kind is code.NOT_LITERAL:
                parts = self._members([(code.NEGATE, None), (code.LITERAL, value)])
            elif kind is code.IN:
                parts = self._members(value)
            elif kind is code.ANY:
                parts = self._members([(code.NEGATE, None), (code.LITERAL, 10)])
            elif kind is code.BRANCH:
                parts = [text for branch in value[1] for text in self.examples(branch)[:2]]
            elif kind is code.SUBPATTERN:
                parts = self.examples(value[-1])
            elif kind is code.ATOMIC_GROUP:
                parts = self.examples(value)
            elif kind in _REPEATS:
                least = max(value[0], 1)
                parts = [text * least for text in self.examples(value[2])] + [""] * (value[0] == 0)
            else:
                assert kind in (code.AT, code.ASSERT, code.ASSERT_NOT), f"how is {kind} matched?"
            # All choices of one part, each beside the plainest of the others.
            found = [found[0] + part for part in parts] + [text + parts[0] for text in found[1:]]
        return found[:12]

    def repetitions(self, tree: Any, before: str = "") -> Iterator[tuple[str, list[str]]]:
        """For each repetition in a pattern, return what leads there, and what may be repeated."""
        for index, (kind, value) in enumerate(tree):
            here = before + self.examples(tree[:index])[0]
            if kind in _REPEATS:
                inner = self.examples(value[2])
                if value[1] > 1:
                    yield here, inner
                yield from self.repetitions(value[2], here)
                # The same place, come to with the optional part.
                if value[0] == 0 and inner:
                    yield from (
                        (
                            here + inner[0] + self.examples(tree[index + 1 : later])[0],
                            self.examples(other[2]),
                        )
                        for later, (other_kind, other) in enumerate(tree[index + 1 :], index + 1)
                        if other_kind in _REPEATS and other[1] > 1
                    )
            elif kind is code.BRANCH:
                for branch in value[1]:
                    yield from self.repetitions(branch, here)
            elif kind is code.SUBPATTERN:
                yield from self.repetitions(value[-1], here)
            elif kind is code.ATOMIC_GROUP:
                yield from self.repetitions(value, here)


# Ends that fit nowhere, or just not there; with them what the pattern itself names.
_ENDS = ("", "\x00", "x", "\r\n")
# What hurts parsers, whatever the pattern is.
_ALWAYS = (
    " ", "\t", ",", '"', "\\", "0", "f", "a=", ";", "%41", " ,", "a,", ', "', ";a=", "\r\n", "/;",
    "&", "/", "=", "/a",
)  # fmt: skip


def _named(tree: Any) -> set[str]:
    """Return the characters that a pattern names."""
    found: set[str] = set()
    for kind, value in tree:
        if kind in (code.LITERAL, code.NOT_LITERAL):
            found.add(chr(value))
        elif kind is code.IN:
            found |= {chr(one) for of, one in value if of is code.LITERAL}
        elif kind is code.BRANCH:
            found |= {one for branch in value[1] for one in _named(branch)}
        elif kind in _REPEATS or kind is code.SUBPATTERN:
            found |= _named(value[-1])
        elif kind is code.ATOMIC_GROUP:
            found |= _named(value)
    return found


def _filled(start: str, repeated: str, end: str, length: int) -> str:
    return start + repeated * ((length - len(start) - len(end)) // len(repeated)) + end


def lines_for(one: Found) -> list[tuple[str, str, str]]:
    """Return start, what is repeated, and end, of all lines that are made for a pattern."""
    text = one.pattern.decode("latin-1") if isinstance(one.pattern, bytes) else one.pattern
    tree = parser.parse(text, one.flags & ~re.UNICODE & ~re.DEBUG)
    found: dict[tuple[str, str, str], None] = {}
    marks = [mark for mark in sorted(_named(tree)) if not mark.isalnum()][:6]
    for before, inner in [("", [*_ALWAYS]), *Sampler(marks).repetitions(list(tree))]:
        pumps = [text for text in inner if text]
        mixes = [a + b for a, b in pairwise(pumps)]
        for repeated in [*pumps, *mixes]:
            for end in (*_ENDS, *marks):
                found[before, repeated, end] = None
    return list(found)


@pytest.mark.release
def test_no_pattern_goes_back() -> None:
    """Found in the test: to look for them takes longer than any other file takes to collect."""
    for one in patterns():
        check(one)


def check(one: Found) -> None:
    """64 KiB of anything are read in 5 ms."""
    binary = isinstance(one.pattern, bytes)
    for start, repeated, end in lines_for(one):
        for method in one.ways:
            for length in LENGTHS:
                text = _filled(start, repeated, end, length)
                line = text.encode("latin-1", "replace") if binary else text
                read = getattr(one.compiled, method)
                cpu_s = cpu_s_of(partial(read, line), enough_s=CPU_S_MAX / 2)
                if length == LINE_BYTES and CPU_S_MAX <= cpu_s < 10 * CPU_S_MAX:
                    # Perhaps the machine is slow: a quarter takes a quarter, or a sixteenth. It may
                    # change its speed between two measurements, but not each time.
                    quarter = partial(read, line[: len(line) // 4])
                    whole = partial(read, line)
                    if any(cpu_s_of(whole) < 6 * cpu_s_of(quarter) for _ in range(5)):
                        continue
                assert cpu_s < CPU_S_MAX, (
                    f"{one.pattern!r}.{method} takes {1000 * cpu_s:.1f} ms for {length} octets: "
                    f"{start!r}, then {repeated!r} again and again, then {end!r}"
                )


@pytest.mark.parametrize("pattern", [
    rb"[ \t]*([a-z]+)[ \t]*(?:;q=1)?[ \t]*", rb"a:[ \t]*(x(?:[\t -~]*[!-~])?)?[ \t]*",
    rb"https?://([^/?#]*)([^#]*)", rb"(?:a+)+", rb"(a|ab)(c|bcd)(d*)*", rb"x*,?x*=",
    rb"(?:a|b|ab)*c", rb"\"(?:[^\"]|\\.)*\"", rb"[^/]*[.][^/]*/",
])  # fmt: skip
def test_what_goes_back_is_found_out(pattern: bytes) -> None:
    """The lines made for it show that it does."""
    one = Found(pattern, 0, "here", {"fullmatch"})
    with pytest.raises(AssertionError, match="takes"):
        check(one)
