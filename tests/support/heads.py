"""Heads as the parsers make them, for tests of what comes after the parsing."""

from retter.http.message import Framing, HeadForm, RequestHead, ResponseHead
from retter.http.variants import VariantRules


def request_head(
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    target: bytes = b"/",
    host: bytes = b"example.com",
    framing: Framing = Framing.NONE,
    upgrade: bytes = b"",
) -> RequestHead:
    """Make a request's head from its fields, all of which may identify the client."""
    form = HeadForm(
        host=host,
        framing=framing,
        upgrade=upgrade,
        conditional=any(name == b"range" for name, _ in fields),
    )
    return RequestHead(
        method,
        target,
        form,
        fields,
        VariantRules().variant_key(fields),
        fields=((b"host", host), *fields),
    )


def response_head(
    *fields: tuple[bytes, bytes],
    status: int = 200,
    set_cookies: tuple[bytes, ...] = (),
    event_stream: bool = False,
) -> ResponseHead:
    """Make a response's head from its fields."""
    kept = [line for line in fields if line[0] not in (b"age", b"content-length", b"set-cookie")]
    stored = b"HTTP/1.1 %d Fine\r\n" % status + b"".join([n + b": " + v + b"\r\n" for n, v in kept])
    return ResponseHead(
        status=status,
        fields=fields,
        framing=Framing.NONE,
        content_length=0,
        keep_alive=True,
        forward=stored,
        stored=stored,
        set_cookies=set_cookies,
        event_stream=event_stream,
        plain=False,
    )
