"""What the tests of exchanges begin with."""

from typing import Any

from tests.support.harness import FakeProxy, body_of, get, reply

POST = (
    b"POST /cart HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 9\r\n"
    b"Content-Type: text/plain\r\n\r\nitem=beer"
)


def warmed(**settings: Any) -> FakeProxy:
    """A proxy that has a stored response to GET / for everyone."""
    proxy = FakeProxy(**settings)
    client = proxy.client(get())
    proxy.upstream.received()
    proxy.upstream.sends(reply(b"good", headers={"ETag": '"1"'}))
    assert body_of(client.received()) == b"good"
    return proxy
