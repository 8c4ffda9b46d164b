"""Messages between the supervisor and a worker."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.process.worker_link import (
    MESSAGE_BYTES_MAX,
    Kind,
    Message,
    WorkerLink,
    packed,
    pair,
    received,
    send,
    unpacked,
)


@given(st.builds(Message, st.sampled_from(Kind), st.text(max_size=200)))
def test_a_message_is_what_was_packed(message: Message) -> None:
    text = message.text.encode("utf-8", "replace").decode("utf-8", "replace")
    assert unpacked(packed(message)) == Message(message.kind, text)


def test_a_long_text_is_cut_off() -> None:
    octets = packed(Message(Kind.FAILED, "é" * MESSAGE_BYTES_MAX))
    assert len(octets) == MESSAGE_BYTES_MAX
    assert unpacked(octets).text.startswith("ééé")


@pytest.mark.parametrize("octets", [b"", b"\0", b"\xff123"])
def test_other_octets_are_no_message(octets: bytes) -> None:
    with pytest.raises(ValueError, match=r"message|Kind"):
        unpacked(octets)


def test_messages_arrive_in_order_and_then_the_end() -> None:
    ours, its = pair()
    with ours, its:
        assert received(ours) == []
        send(its, Message(Kind.READY))
        send(its, Message(Kind.FAILED, "why"))
        its.close()
        assert received(ours) == [Message(Kind.READY), Message(Kind.FAILED, "why")]
        assert received(ours) is None
        send(ours, Message(Kind.DRAIN))  # to nobody


def test_a_worker_hears_its_supervisor_and_its_end() -> None:
    async def main() -> None:
        ours, its = pair()
        with ours, its:
            link = WorkerLink(its, asyncio.get_running_loop())
            heard: asyncio.Queue[Message | None] = asyncio.Queue()
            link.on_message = heard.put_nowait
            link.on_end = lambda: heard.put_nowait(None)
            link.start()
            send(ours, Message(Kind.RELOAD))
            assert await heard.get() == Message(Kind.RELOAD)
            link.tell(Kind.RELOADED)
            assert received(ours) == [Message(Kind.RELOADED)]
            ours.close()
            assert await heard.get() is None

    asyncio.run(main())
