"""A ring of messages: whatever a reader sees of it, it gets the next messages or knows better."""

from hypothesis import given
from hypothesis import strategies as st

from retter.base.ring import HEAD_BYTES, RingReader, RingWriter

RING_BYTES = 256


class Ring:
    """A ring with its writer."""

    def __init__(self, position: int = 0) -> None:
        self.memory = bytearray(RING_BYTES)
        self.heads = memoryview(bytearray(24)).cast("q")
        self.heads[1] = position
        self.writer = RingWriter(memoryview(self.memory), self.heads, 1)

    def reader(self) -> RingReader:
        return RingReader(memoryview(self.memory), self.heads, 1, self.writer.head)


payloads = st.lists(st.binary(max_size=RING_BYTES // 4), max_size=40)


@given(payloads, st.integers(0, 10_000))
def test_a_reader_that_keeps_up_gets_every_message(messages: list[bytes], begin: int) -> None:
    ring = Ring(begin * 8)
    reader = ring.reader()
    for message in messages:
        ring.writer.write(message)
        assert reader.read() == [message]
        assert reader.read() == []


@given(payloads, st.sets(st.integers(0, 40)), st.integers(0, 10_000))
def test_a_reader_gets_all_messages_in_order_or_knows_that_some_are_missing(
    messages: list[bytes], reads: set[int], begin: int
) -> None:
    ring = Ring(begin * 8)
    reader, waiting = ring.reader(), list[bytes]()
    for number, message in enumerate(messages):
        ring.writer.write(message)
        waiting.append(message)
        if number in reads:
            assert reader.read() in (waiting, None)
            waiting.clear()
    found = reader.read()
    assert found in (waiting, None)
    if sum([HEAD_BYTES + len(one) + 7 for one in waiting]) < RING_BYTES * 3 // 4:
        assert found == waiting, "there was room for all of them"


def test_memory_that_is_not_written_yet_is_no_message() -> None:
    """Another core may see the head before the octets of the first message."""
    ring = Ring()
    reader = ring.reader()
    ring.heads[1] = HEAD_BYTES
    assert reader.read() is None


@given(st.binary(max_size=64), st.integers(0, HEAD_BYTES + 63), st.integers(1, 255))
def test_octets_that_were_not_written_as_a_message_are_none(
    message: bytes, at: int, changed: int
) -> None:
    ring = Ring()
    reader = ring.reader()
    ring.writer.write(message)
    if at < HEAD_BYTES + len(message):
        ring.memory[at] ^= changed
        assert reader.read() is None
        assert reader.read() == [], "it goes on with the next one"
        ring.writer.write(b"next")
        assert reader.read() == [b"next"]


@given(st.binary(min_size=1, max_size=64), st.data())
def test_a_message_that_is_seen_in_pieces_is_not_read(message: bytes, data: st.DataObject) -> None:
    """As on another core that sees the new head before it sees all of the message."""
    ring = Ring()
    reader = ring.reader()
    ring.writer.write(b"before")
    assert reader.read() == [b"before"]
    old = bytes(ring.memory)
    ring.writer.write(message)
    whole = bytes(ring.memory)
    cut = data.draw(st.integers(0, len(whole)))
    ring.memory[:] = whole[:cut] + old[cut:]
    found = reader.read()
    assert found == ([message] if bytes(ring.memory) == whole else None)


def test_a_second_reader_has_a_position_of_its_own() -> None:
    ring = Ring()
    first = ring.reader()
    ring.writer.write(b"1")
    second = ring.reader()
    ring.writer.write(b"2")
    assert first.read() == [b"1", b"2"] and second.read() == [b"2"]
