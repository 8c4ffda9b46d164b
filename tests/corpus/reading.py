"""How the corpus reads what came over a wire."""

import re

from tests.support.harness import body_of, field

OURS = re.compile(
    rb"(?:X-Forwarded-(?:For|Host|Proto)|X-Real-IP): [^\r\n]*\r\n|Via: 1.1 retter [^\r\n]*\r\n"
)


OUR_ANSWER_FIELDS = re.compile(rb"(?:X-Retter|X-Circuit): [^\r\n]*\r\n|Via: 1.1 retter\r\n")


def unchunked(data: bytes) -> list[bytes]:
    """Chunks of a body that has not come to its end."""
    chunks: list[bytes] = []
    while data:
        size, _, data = data.partition(b"\r\n")
        assert int(size, 16) > 0, "the last chunk must not be there"
        chunks.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return chunks


def rejoined(request: bytes) -> bytes:
    """The request with its chunks joined: how we cut a body is nobody's business."""
    head, _, body = request.partition(b"\r\n\r\n")
    if b"\r\nTransfer-Encoding: chunked" not in head:
        return request
    data, rest = b"", body
    while not rest.startswith(b"0\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        data += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return head + b"\r\n\r\n" + chunk + rest


def without_informational(message: bytes) -> tuple[int, bytes]:
    """How many 1xx come first, and what comes after them."""
    count = 0
    while re.match(rb"HTTP/1.1 1\d\d ", message):
        message = body_of(message)
        count += 1
    return count, message


def body_at_client(answer: bytes) -> bytes:
    """The body as far as it has come, unchunked."""
    if field(answer, "transfer-encoding") != "chunked":
        return body_of(answer)
    data, body = body_of(answer), b""
    while data and not data.startswith(b"0\r\n"):
        size, _, data = data.partition(b"\r\n")
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return body


def sorted_last(lines: bytes, names: tuple[bytes, ...]) -> list[bytes]:
    split = lines.split(b"\r\n")
    last = [line for line in split if line.startswith(names)]
    return [line for line in split if not line.startswith(names)] + sorted(last)
