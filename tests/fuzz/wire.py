"""The strictest reading of what RETTER writes, to either side; what is not exactly so is a finding.

Nothing of RETTER's own is used here, so that it is not measured by its own mistakes.
"""

import re
from dataclasses import dataclass

_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_FIELD = re.compile(rb"(" + _TOKEN + rb"): ?([\x21-\x7e\x80-\xff]?(?:[\t\x20-\x7e\x80-\xff]*))")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") (/[\x21-\x7e]*|\*) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_CHUNK_SIZE = re.compile(rb"[0-9a-f]{1,16}")

Fields = list[tuple[bytes, bytes]]
Octets = bytes  # a message has an attribute of that name


@dataclass
class Message:
    """A request or an answer as far as it has come."""

    method: bytes = b""
    target: bytes = b""
    status: int = 0
    fields: Fields | None = None
    bytes: bytes = b""  # all of it
    complete: bool = False

    def all(self, name: str) -> list[Octets]:
        assert self.fields is not None
        return [value for known, value in self.fields if known == name.encode()]


def _head(data: bytes) -> tuple[bytes, Fields, int] | None:
    """First line, fields, length; None if the head is incomplete."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    first, *lines = data[: end - 4].split(b"\r\n")
    fields: Fields = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        assert match, f"a field that is none: {line!r}"
        fields.append((match[1].lower(), match[2]))
    return first, fields, end


def _length(fields: Fields) -> int | None:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    assert len(lengths) + len(codings) <= 1, f"framed twice: {fields}"
    if codings:
        assert codings[0].lower() == b"chunked", codings
        return -1
    if lengths:
        assert lengths[0].isdigit(), lengths
        return int(lengths[0])
    return None


def _chunks_end(data: bytes, at: int) -> int:
    """Where a chunked body ends, or 0 while it has not."""
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return 0
        assert _CHUNK_SIZE.fullmatch(data[at:end]), f"a chunk size that is none: {data[at:end]!r}"
        size = int(data[at:end], 16)
        at = end + 2
        if not size:
            break
        if len(data) < at + size + 2:
            return 0
        assert data[at + size : at + size + 2] == b"\r\n", "a chunk that does not end"
        at += size + 2
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return 0
        if end == at:
            return end + 2
        assert _FIELD.fullmatch(data[at:end]), f"a trailer that is none: {data[at:end]!r}"
        at = end + 2


def _finish(message: Message, data: bytes, head_end: int, length: int) -> int:
    """Fill in the bytes of a message with a body, and return where it ends."""
    end = _chunks_end(data, head_end) if length < 0 else head_end + length
    message.complete = 0 < end <= len(data)
    message.bytes = data[:end] if message.complete else data
    return end if message.complete else len(data)


def requests_in(data: bytes, switched: bool = False) -> list[Message]:
    """Read what the application got; after an Upgrade that it has granted, the rest is raw."""
    messages: list[Message] = []
    while data:
        message = Message()
        messages.append(message)
        head = _head(data)
        assert head, f"half a head: {data!r}"
        first, message.fields, end = head
        match = _REQUEST_LINE.fullmatch(first)
        assert match, f"a request line that is none: {first!r}"
        message.method, message.target = match.groups()
        assert len(message.all("host")) == 1
        assert len(message.all("x-real-ip")) == 1
        if switched and message.all("upgrade"):
            message.bytes, message.complete = data, True
            break
        length = _length(message.fields)
        taken = _finish(message, data, end, 0 if length is None else length)
        data = data[taken:]
    return messages


def answers_in(data: bytes, methods: list[bytes]) -> list[Message]:
    """Read what a client got for requests with these methods; the last may be incomplete."""
    messages: list[Message] = []
    while data:
        assert len(messages) < len(methods), f"an answer that nobody asked for: {data!r}"
        head = _head(data)
        if head is None:
            messages.append(Message(bytes=data))
            break
        first, fields, end = head
        match = _STATUS_LINE.fullmatch(first)
        assert match, f"a status line that is none: {first!r}"
        status = int(match[1])
        if status < 200:
            assert status != 101, "a switch that nobody asked for"
            data = data[end:]
            continue
        message = Message(status=status, fields=fields)
        length = _length(fields)
        if methods[len(messages)] == b"HEAD" or status in (204, 304):
            length = 0
        elif length is None:
            length = len(data) - end  # until the connection ends
            assert message.all("connection") == [b"close"], "an answer without an end"
        messages.append(message)
        data = data[_finish(message, data, end, length) :]
    return messages
