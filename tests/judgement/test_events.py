"""The ring of events: in order, bounded, and never a half-written one."""

from hypothesis import given
from hypothesis import strategies as st

from retter.judgement.events import Event, Happened, Ring
from retter.judgement.memory import EVENT_BYTES, EVENTS_MAX, Memory, bytes_needed
from tests.support.tracing import untraced


def _ring() -> tuple[Memory, Ring]:
    memory = Memory(bytearray(bytes_needed(2)), 2)
    return memory, Ring(memory, 1)


def _event(number: int) -> Event:
    return Event(number + 0.5, float(number), 2**48 - 1, -number, 3, 4, int(Happened.PASSED), 5)


@untraced
@given(st.lists(st.integers(0, 3 * EVENTS_MAX), max_size=6))
def test_what_is_read_is_what_was_written_or_known_as_lost(counts: list[int]) -> None:
    """Whatever the reader's pace."""
    _, ring = _ring()
    written = read = lost_in_all = tail = 0
    for count in counts:
        for number in range(written, written + count):
            ring.write(*_event(number))
        written += count
        events, tail, lost = ring.read(tail, EVENTS_MAX)
        assert lost == max(0, count - EVENTS_MAX)
        assert events == [_event(number) for number in range(written - len(events), written)]
        read += len(events)
        lost_in_all += lost
    assert tail == written == read + lost_in_all == ring.head


def test_a_reader_takes_the_newest_if_there_are_too_many() -> None:
    """The rest counts as lost."""
    _, ring = _ring()
    for number in range(10):
        ring.write(*_event(number))
    assert ring.read(0, 3) == ([_event(7), _event(8), _event(9)], 10, 7)


def test_an_event_that_is_not_visible_yet_is_read_next_time() -> None:
    """Another processor may see the head before the octets; the check sum tells."""
    memory, ring = _ring()
    for number in range(3):
        ring.write(*_event(number))
    at = memory.slots[1].events_at + EVENT_BYTES + 20
    octet = memory.octets[at]
    memory.octets[at] = octet ^ 1
    assert ring.read(0, EVENTS_MAX) == ([_event(0)], 1, 0)
    memory.octets[at] = octet
    assert ring.read(1, EVENTS_MAX) == ([_event(1), _event(2)], 3, 0)


def test_an_event_that_is_written_over_while_it_is_read_is_lost() -> None:
    """And only that one."""
    memory, ring = _ring()
    for number in range(EVENTS_MAX + 1):
        ring.write(*_event(number))
    memory.octets[memory.slots[1].events_at + EVENT_BYTES + 3] ^= 1
    events, tail, lost = ring.read(1, EVENTS_MAX)
    assert events == [_event(number) for number in range(2, EVENTS_MAX + 1)]
    assert (tail, lost) == (EVENTS_MAX + 1, 1)
