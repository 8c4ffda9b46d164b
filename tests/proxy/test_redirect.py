"""Redirects from plain listeners to https, and what is kept apart by the protocol."""

import json
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from retter.base.counters import by_reason
from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.redirect import RedirectingConnection
from tests.support.harness import (
    FakePeer,
    FakeProxy,
    FakeTransport,
    body_of,
    field,
    get,
    reply,
    status_of,
)


def connect(proxy: FakeProxy, connection: DownstreamConnection) -> FakePeer:
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    peer = FakePeer(transport)
    proxy.clients.append(peer)
    return peer


def redirected(proxy: FakeProxy) -> FakePeer:
    return connect(proxy, RedirectingConnection(proxy.services))


def secured(proxy: FakeProxy) -> FakePeer:
    return connect(proxy, DownstreamConnection(proxy.services, b"https"))


@pytest.mark.parametrize(
    ("host", "port", "location"),
    [
        ("shop.example", 443, "https://shop.example/a?b=c"),
        ("shop.example:80", 443, "https://shop.example/a?b=c"),
        ("shop.example:8080", 8443, "https://shop.example:8443/a?b=c"),
        ("[::1]:80", 443, "https://[::1]/a?b=c"),
        ("[2001:db8::1]", 8443, "https://[2001:db8::1]:8443/a?b=c"),
    ],
)
def test_where_a_client_is_sent(host: str, port: int, location: str) -> None:
    proxy = FakeProxy(https_redirect=port)
    client = redirected(proxy)
    for _ in range(3):  # the third by way of the memo; the connection stays
        client.sends(get("/a?b=c", headers={"Host": host}))
        answer = client.received()
        assert (status_of(answer), field(answer, "location")) == (301, location)
        assert not client.closed
    client.sends(b"GET http://%b/a?b=c HTTP/1.1\r\nHost: %b\r\n\r\n" % (2 * (host.encode(),)))
    assert field(client.received(), "location") == location
    assert not proxy.dialled
    assert by_reason(proxy.services.counters.own_get) == {"https-redirect": 4}


def test_other_methods_keep_their_method_and_their_body() -> None:
    proxy = FakeProxy(https_redirect=443)
    client = redirected(proxy)
    client.sends(b"DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert status_of(client.received()) == 308
    client.sends(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    answer = client.received()
    assert (status_of(answer), field(answer, "connection")) == (308, "close")
    assert client.closed
    assert not proxy.dialled


def test_pipelined_requests_are_all_sent_away() -> None:
    proxy = FakeProxy(https_redirect=443)
    client = redirected(proxy)
    client.sends(get("/1") + get("/2") + get("/3", version="1.0"))
    assert client.received().count(b"HTTP/1.1 301 ") == 3
    assert client.closed


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_gives_out_certificates_is_let_through(method: str) -> None:
    proxy = FakeProxy(https_redirect=443)
    client = redirected(proxy)
    path = "/.well-known/acme-challenge/token"
    client.sends(f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
    proxy.upstream.sends(reply(b"proof"))
    assert body_of(client.received()) == b"proof"


@pytest.mark.parametrize(
    "path",
    [
        "../../account",
        "x/../../../account",
        "%2e%2e/%2E%2e/account",
        ".%2e/../account",
        "a%2f..%2fb",
        "..",
        "..?x",
        ".",
        "",
        "/",
        "/../../account",
        "..;/../account",
        "..\\..\\account",
        "a/b",
        "a%00",
    ],
)
def test_what_does_not_stay_there_is_sent_to_https(path: str) -> None:
    """An application that removes dot segments would be asked for a page in the clear."""
    proxy = FakeProxy(https_redirect=443)
    for method in ("GET", "POST"):
        client = redirected(proxy)
        target = "/.well-known/acme-challenge/" + path
        client.sends(f"{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        answer = client.received()
        assert status_of(answer) in (301, 308)
        assert field(answer, "location") == f"https://a{target}"
    assert not proxy.upstreams


@pytest.mark.parametrize("token", ["a", "..a", "...", "-_~.txt", "a?x=../..", "A" * 500])
def test_any_token_stays_there(token: str) -> None:
    proxy = FakeProxy(https_redirect=443)
    redirected(proxy).sends(get("/.well-known/acme-challenge/" + token))
    assert proxy.upstream.received().startswith(b"GET /.well-known/acme-challenge/")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_names_no_host_is_not_served_in_the_clear(method: str) -> None:
    proxy = FakeProxy(https_redirect=443)
    for _ in range(3):  # the third by way of the memo
        client = redirected(proxy)
        client.sends(f"{method} /account HTTP/1.0\r\nContent-Length: 1\r\n\r\nx".encode())
        answer = client.received()
        assert status_of(answer) == 400 and b"Host" in body_of(answer)
        assert client.closed
    client = redirected(proxy)
    for _ in range(2):
        client.sends(b"OPTIONS * HTTP/1.1\r\nHost: a:80\r\n\r\n")
        assert field(client.received(), "location") == "https://a"
    assert not proxy.upstreams


def test_nor_where_issuers_of_certificates_ask() -> None:
    proxy = FakeProxy(https_redirect=443)
    client = redirected(proxy)
    client.sends(b"GET /.well-known/acme-challenge/token HTTP/1.0\r\n\r\n")
    assert status_of(client.received()) == 400
    assert not proxy.upstreams


def test_a_trusted_proxy_has_spoken_https_already() -> None:
    proxy = FakeProxy(https_redirect=443, trusted_proxies="192.0.2.7")
    client = redirected(proxy)
    client.sends(get(headers={"X-Forwarded-Proto": "http"}))
    assert status_of(client.received()) == 301
    client.sends(get(headers={"X-Forwarded-Proto": "https"}))
    proxy.upstream.sends(reply())
    assert status_of(client.received()) == 200
    stranger = FakeProxy(https_redirect=443)
    client = redirected(stranger)
    client.sends(get(headers={"X-Forwarded-Proto": "https"}))
    assert status_of(client.received()) == 301


def test_a_stored_redirect_to_https_sends_nobody_round_in_circles() -> None:
    """The application redirects plain requests; its answer is not for those of https."""
    proxy = FakeProxy(circuit="auto")
    plain = proxy.client(get("/"))
    assert b"X-Forwarded-Proto: http\r\n" in proxy.upstream.received()
    proxy.upstream.sends(
        reply(b"", status="301 Moved Permanently", headers={"Location": "https://shop.example/"})
    )
    assert status_of(plain.received()) == 301
    secure = secured(proxy)
    for status, body in (("200 OK", b"home"), ("500 Oh", b"broken")):
        secure.sends(get("/"))
        assert b"X-Forwarded-Proto: https\r\n" in proxy.upstream.received()
        proxy.upstream.sends(reply(body, status=status))
        assert body_of(secure.received()) == b"home"
    plain.sends(get("/"))
    proxy.upstream.sends(reply(b"broken", status="500 Oh"))
    answer = plain.received()
    assert (status_of(answer), field(answer, "x-retter")) == (301, "cache")


def test_a_redirect_that_is_switched_off_ends_on_connections_that_are_open() -> None:
    """It went to port 0."""
    proxy = FakeProxy(https_redirect=443)
    connection = RedirectingConnection(proxy.services)
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    peer = FakePeer(transport)
    peer.sends(get("/a"))
    assert b"Location: https://shop.example/a\r\n" in peer.received()
    proxy.proxy.apply(replace(proxy.services.settings, https_redirect=0))
    peer.sends(get("/a"))
    proxy.upstream.sends(reply(b"plain"))
    assert peer.received().endswith(b"plain")


def test_the_log_of_a_redirect_names_the_client_that_a_trusted_proxy_names(tmp_path: Path) -> None:
    log = tmp_path / "log"
    proxy = FakeProxy(
        https_redirect=443, access_log=str(log), trusted_proxies=(ip_network("192.0.2.7"),)
    )
    connection = RedirectingConnection(proxy.services)
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    FakePeer(transport).sends(get("/a", headers={"X-Forwarded-For": "203.0.113.9"}))
    assert b" 301 " in transport.buffer
    proxy.proxy.close()
    assert json.loads(log.read_text())["client"] == "203.0.113.9"
