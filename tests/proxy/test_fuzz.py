"""Valid and mutated traffic on both sides, cut anywhere: what must hold in any world.

The same steps happen in four worlds (fuzz/world.py) that differ in nothing but their memos of heads
and lines; what is written and decided must be the same in all of them.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from retter.http import templates
from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.request import ParsedRequest
from retter.proxy.upstream_connection import UpstreamConnection
from tests.fuzz import steps as steps_of_fuzz
from tests.fuzz.steps import (
    CLIENT_ASKS,
    CLIENT_BEARS,
    CLIENT_ENDS,
    CLIENT_REPEATS,
    CLIENT_RESETS,
    CLIENT_SENDS,
    CONNECTS,
    DIAL,
    LATER,
    PASSES,
    PROPER_ANSWERS,
    PROPER_REQUESTS,
    REPEATED_REQUESTS,
    UPSTREAM_ANSWERS,
    UPSTREAM_BEARS,
    UPSTREAM_ENDS,
    UPSTREAM_REPEATS,
    UPSTREAM_RESETS,
    UPSTREAM_SENDS,
    WORDS,
    Step,
    carry_out,
    do,
    seeds,
    what_repeats,
)
from tests.fuzz.stopwatch import Hold, Stopwatch, longest
from tests.fuzz.world import CONFIGURATIONS, World, without_chance
from tests.support.compiled import replaces_parts
from tests.support.memos import WAYS
from tests.support.tracing import untraced

pytestmark = untraced

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


def test_a_client_that_reads_nothing_while_its_stored_response_is_decoded() -> None:
    """Its time to read ends nevertheless: the connection does not stay for ever."""
    carry_out(
        198,
        [
            Step(CLIENT_ASKS, 0, 13, 255),
            Step(UPSTREAM_ANSWERS, 0, 7, 13),
            Step(CLIENT_ASKS, 0, 13, 0),
            Step(PASSES, 0, 30, 0),
            Step(UPSTREAM_ANSWERS, 3, 35, 0),
            Step(CLIENT_BEARS, 0, 0, 1),
        ],
    )


# -- any history ----------------------------------------------------------------------------------

CUTS = st.one_of(st.just(0), st.just(255), st.integers(1, 254))
WHO = st.integers(0, 3)
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from((b"", *WORDS))), max_size=3
)
CLIENTS_BYTES = [
    step.data
    for _, _, steps in SEEDS
    for step in steps
    if step.operation == CLIENT_SENDS and len(step.data) < 3000
]
APPLICATIONS_BYTES = [
    step.data
    for _, _, steps in SEEDS
    for step in steps
    if step.operation == UPSTREAM_SENDS and len(step.data) < 3000
]


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """Put words in, in place of some octets."""
    for share, octets, word in edits:
        place = int(share * len(data))
        data = data[:place] + word + data[place + octets :]
    return data


@pytest.fixture(autouse=True, scope="module")
def _no_chance() -> Iterator[None]:
    with without_chance():
        yield


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


@settings(max_examples=60, deadline=None)
@given(data=st.sampled_from(CLIENTS_BYTES), answer=st.sampled_from(APPLICATIONS_BYTES),
       what=st.integers(0, 255), cuts=CUTS, configuration=st.integers(0, 255))  # fmt: skip
def test_what_comes_again_and_again(
    data: bytes, answer: bytes, what: int, cuts: int, configuration: int
) -> None:
    """60 KB of some octets out of what others have sent, on either side."""
    carry_out(configuration, [Step(CLIENT_REPEATS, 0, what, cuts, data), Step(UPSTREAM_ANSWERS)])
    carry_out(configuration, [Step(CLIENT_ASKS), Step(UPSTREAM_REPEATS, 0, what, cuts, answer)])


def test_a_garbage_collection_is_not_found() -> None:
    """If the same steps take long in one run and not in the next, the machine is the cause."""
    slow, quick = Hold("octets", 10, 1.0), Hold("octets", 10, 0.001)
    runs = [Stopwatch() for _ in range(3)]
    runs[0].holds, runs[1].holds, runs[2].holds = [slow, quick], [quick, slow], [slow, slow]
    assert longest(runs[:1]) == slow
    assert longest(runs[::2]) == slow
    assert longest(runs) is None
    large = Hold("octets", 640 * 1024, 0.4)
    runs[0].holds = [large]
    assert longest(runs[:1]) is None


# -- that it would be seen ------------------------------------------------------------------------


@replaces_parts
def test_a_pattern_that_goes_back_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_back = re.compile(rb"([!-9;-~]+):[ \t]*([!-~](?:[\t -~]*[!-~])?)?[ \t]*")
    monkeypatch.setattr(templates, "_FIELD_LINE", goes_back)
    monkeypatch.setattr(steps_of_fuzz, "REPEATED_BYTES", 8000)
    start, piece, end = REPEATED_REQUESTS[0]
    sends = Step(CLIENT_REPEATS, 0, what_repeats(piece, end), 0, start + piece + end)
    with pytest.raises(AssertionError, match="held the loop for"):
        carry_out(0, [Step(CONNECTS), sends])


def found(first: int) -> bool:
    """Whether a world somewhere among the seeds goes wrong, in one of all configurations.

    Args:
        first: Where to begin the search: 0 is the seeds themselves. All the others follow.
    """
    for shift in range(first, first + len(CONFIGURATIONS)):
        for _, configuration, steps in SEEDS:
            try:
                carry_out(configuration + shift, steps)
            except AssertionError:
                return True
    return False


def _reuses_everything(self: UpstreamConnection, now: float, *_: Any) -> None:
    self._sink = self._framing = self._decoder = None
    self._ready.put(self, now)


_make_parsed_request = ParsedRequest.__init__


def _is_everyones(self: ParsedRequest, *arguments: Any, **named: Any) -> None:
    _make_parsed_request(self, *arguments, **named)
    self.identity = replace(self.identity, key=b"", owner=b"")


@pytest.mark.release
@pytest.mark.parametrize(
    ("where", "name", "instead", "first"),
    [
        (DownstreamConnection, "on_deadline", lambda *_: None, 0),
        (UpstreamConnection, "_end_exchange", _reuses_everything, 7),
        (UpstreamConnection, "discard", lambda self: None, 0),
        (ParsedRequest, "__init__", _is_everyones, 0),
    ],
)
@replaces_parts
def test_a_broken_proxy_is_found_out(
    monkeypatch: pytest.MonkeyPatch, where: type, name: str, instead: Callable[..., Any], first: int
) -> None:
    monkeypatch.setattr(where, name, instead)
    assert found(first)
