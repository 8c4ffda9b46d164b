"""Frames that two processes exchange: what comes is what went, or it is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.frames import (
    PAYLOAD_BYTES_MAX,
    PREAMBLE,
    VERSION,
    BadFrame,
    FrameReader,
    FrameWriter,
    after_preamble,
)

frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=6)


def stream_of(said: list[tuple[int, bytes]]) -> bytes:
    writer = FrameWriter()
    return PREAMBLE + b"".join([writer.frame(kind, payload) for kind, payload in said])


def read(data: bytes) -> list[tuple[int, bytes]]:
    return FrameReader().feed(data[after_preamble(data) :])


@given(frames)
def test_what_is_written_is_read(said: list[tuple[int, bytes]]) -> None:
    assert read(stream_of(said)) == said


@given(frames, st.data())
def test_it_may_come_in_any_pieces(said: list[tuple[int, bytes]], data: st.DataObject) -> None:
    octets = stream_of(said)[len(PREAMBLE) :]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=5)))
    reader, found = FrameReader(), []
    for begin, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
        found += reader.feed(octets[begin:end])
    assert found == said


@given(frames.filter(bool), st.data())
def test_any_octet_flipped_is_noticed(said: list[tuple[int, bytes]], data: st.DataObject) -> None:
    octets = bytearray(stream_of(said))
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(octets))
    except BadFrame:
        return
    # A length that has grown makes the rest of the stream missing: no frame is made up.
    assert found == said[: len(found)] and len(found) < len(said)


@given(frames.filter(lambda said: len(said) > 1), st.data())
def test_a_frame_that_is_missing_is_noticed(
    said: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    writer = FrameWriter()
    whole = [writer.frame(kind, payload) for kind, payload in said]
    del whole[data.draw(st.integers(0, len(whole) - 2))]
    with pytest.raises(BadFrame):
        read(PREAMBLE + b"".join(whole))


def test_other_programs_and_versions_are_refused() -> None:
    with pytest.raises(BadFrame, match="too short"):
        after_preamble(PREAMBLE[:-1])
    with pytest.raises(BadFrame, match="another program"):
        after_preamble(b"X" + PREAMBLE[1:])
    older = PREAMBLE[:-2] + (VERSION - 1).to_bytes(2, "little")
    with pytest.raises(BadFrame, match=f"version {VERSION - 1}, and this process reads"):
        after_preamble(older)


def test_no_frame_is_waited_for_that_is_too_long() -> None:
    head = bytes(4) + (PAYLOAD_BYTES_MAX + 1).to_bytes(4, "little") + b"\0"
    with pytest.raises(BadFrame, match="too long"):
        FrameReader().feed(head)
