"""Valid and mutated traffic on both sides, cut anywhere: what must hold in any world.

The same steps happen in four worlds (fuzz/world.py) that differ in nothing but their memos of heads
and lines; what is written and decided must be the same in all of them.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from retter.downstream import DownstreamConnection
from retter.proxy import ParsedRequest
from retter.upstream import UpstreamConnection
from tests.compiled import replaces_parts
from tests.fuzz.steps import (
    CLIENT_ASKS,
    CLIENT_BEARS,
    CLIENT_ENDS,
    CLIENT_RESETS,
    CLIENT_SENDS,
    CONNECTS,
    DIAL,
    LATER,
    PASSES,
    PROPER_ANSWERS,
    PROPER_REQUESTS,
    UPSTREAM_ANSWERS,
    UPSTREAM_BEARS,
    UPSTREAM_ENDS,
    UPSTREAM_RESETS,
    UPSTREAM_SENDS,
    WORDS,
    Step,
    carry_out,
    do,
    seeds,
)
from tests.fuzz.world import CONFIGURATIONS, World
from tests.memos import WAYS

SEEDS = list(seeds())


@pytest.mark.parametrize("part", range(8))
def test_the_corpus_in_a_world(part: int) -> None:
    """The rows of the corpus, each beside another client, in whatever configuration."""
    for name, configuration, steps in SEEDS[part::8]:
        try:
            carry_out(configuration, steps, WAYS[part % 4])
        except AssertionError as error:
            error.add_note(f"in {name!r}, configuration {configuration % len(CONFIGURATIONS)}")
            raise


# -- any history ----------------------------------------------------------------------------------

CUTS = st.one_of(st.just(0), st.just(255), st.integers(1, 254))
WHO = st.integers(0, 3)
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from((b"", *WORDS))), max_size=3
)
CLIENTS_BYTES = [step.data for _, _, steps in SEEDS for step in steps
                 if step.operation == CLIENT_SENDS and len(step.data) < 3000]  # fmt: skip
APPLICATIONS_BYTES = [step.data for _, _, steps in SEEDS for step in steps
                      if step.operation == UPSTREAM_SENDS and len(step.data) < 3000]  # fmt: skip


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Put words in, in place of some octets."""
    for share, octets, word in edits:
        place = int(share * len(data))
        data = data[:place] + word + data[place + octets :]
    return data


class AnyHistory(RuleBasedStateMachine):
    """Clients and connections that behave or do not, and four proxies that must not differ."""

    def __init__(self) -> None:
        super().__init__()
        self.worlds: list[World] = []

    @initialize(configuration=st.integers(0, len(CONFIGURATIONS) - 1))
    def begin(self, configuration: int) -> None:
        self.worlds = [World(configuration, way) for way in WAYS]

    def do(self, operation: int, who: int = 0, what: int = 0, cuts: int = 0, data: bytes = b"",
           later: bool = False) -> None:  # fmt: skip
        step = Step(operation + LATER * later, who, what, cuts, data)
        for world in self.worlds:
            do(world, step)

    @rule()
    def client_connects(self) -> None:
        self.do(CONNECTS)

    @rule(who=WHO, what=st.integers(0, len(PROPER_REQUESTS) - 1), cuts=CUTS, later=st.booleans())
    def client_asks(self, who: int, what: int, cuts: int, later: bool) -> None:
        self.do(CLIENT_ASKS, who, what, cuts, later=later)

    @rule(who=WHO, what=st.integers(0, 3), cuts=CUTS)
    def client_asks_again(self, who: int, what: int, cuts: int) -> None:
        """The same page over and over, as the memos like it."""
        self.do(CLIENT_ASKS, who, what)
        self.do(UPSTREAM_ANSWERS, 0, 0, cuts)
        self.do(CLIENT_ASKS, who, what)

    @rule(who=WHO, data=st.sampled_from(CLIENTS_BYTES), edits=EDITS, cuts=CUTS)
    def client_sends(self, who: int, data: bytes, edits: Any, cuts: int) -> None:
        self.do(CLIENT_SENDS, who, 0, cuts, edited(data, edits))

    @rule(who=WHO, resets=st.booleans(), later=st.booleans())
    def client_leaves(self, who: int, resets: bool, later: bool) -> None:
        self.do(CLIENT_RESETS if resets else CLIENT_ENDS, who, later=later)

    @rule(who=WHO, what=st.integers(0, 3))
    def client_bears(self, who: int, what: int) -> None:
        self.do(CLIENT_BEARS, who, what)

    @rule(who=WHO, what=st.integers(0, len(PROPER_ANSWERS) - 1), cuts=CUTS, later=st.booleans())
    def application_answers(self, who: int, what: int, cuts: int, later: bool) -> None:
        self.do(UPSTREAM_ANSWERS, who, what, cuts, later=later)

    @rule(who=WHO, data=st.sampled_from(APPLICATIONS_BYTES), edits=EDITS, cuts=CUTS)
    def application_sends(self, who: int, data: bytes, edits: Any, cuts: int) -> None:
        self.do(UPSTREAM_SENDS, who, 0, cuts, edited(data, edits))

    @rule(who=WHO, resets=st.booleans(), later=st.booleans())
    def application_leaves(self, who: int, resets: bool, later: bool) -> None:
        self.do(UPSTREAM_RESETS if resets else UPSTREAM_ENDS, who, later=later)

    @rule(who=WHO, what=st.integers(0, 3))
    def application_bears(self, who: int, what: int) -> None:
        self.do(UPSTREAM_BEARS, who, what)

    @rule(what=st.integers(0, 255))
    def time_passes(self, what: int) -> None:
        self.do(PASSES, what=what)

    @rule(what=st.integers(0, 3))
    def dialling(self, what: int) -> None:
        self.do(DIAL, what=what)

    @invariant()
    def all_is_well(self) -> None:
        for world in self.worlds:
            world.check()
        transcripts = [world.transcript() for world in self.worlds]
        for way, transcript in zip(WAYS, transcripts, strict=False):
            assert transcript == transcripts[-1], f"the memos can be seen: {way}"

    def teardown(self) -> None:
        for world in self.worlds:
            world.end()


AnyHistory.TestCase.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)
TestAnyHistory = AnyHistory.TestCase


# -- that it would be seen ------------------------------------------------------------------------


def found() -> bool:
    """Whether a world somewhere among the seeds goes wrong."""
    for _, configuration, steps in SEEDS:
        try:
            carry_out(configuration, steps)
        except AssertionError:
            return True
    return False


def _reuses_everything(self: UpstreamConnection, now: float, *_: Any) -> None:
    self._sink = self._framing = self._decoder = None
    self._pool.release(self, now)


_make_parsed_request = ParsedRequest.__init__


def _is_everyones(self: ParsedRequest, *arguments: Any, **named: Any) -> None:
    _make_parsed_request(self, *arguments, **named)
    self.identity = replace(self.identity, key=b"", owner=b"")


@pytest.mark.parametrize(
    ("where", "name", "instead"),
    [
        (DownstreamConnection, "on_deadline", lambda *_: None),
        (UpstreamConnection, "_end_exchange", _reuses_everything),
        (UpstreamConnection, "abandon", lambda self: None),
        (ParsedRequest, "__init__", _is_everyones),
    ],
)
@replaces_parts
def test_a_broken_proxy_is_found_out(
    monkeypatch: pytest.MonkeyPatch, where: type, name: str, instead: Callable[..., Any]
) -> None:
    monkeypatch.setattr(where, name, instead)
    assert found()
