"""Repeated elements of a head are examined up to a limit, and treated with care beyond it.

Each limit is tried at its edge: one less means what it says, one more the careful reading. Cookies
and parameters are in test_owner.py and test_policy.py.
"""

import ipaddress

import pytest

from retter.base.errors import BadRequest, UpstreamMalformed
from retter.base.limits import CODINGS_MAX, FORWARDED_HOPS_MAX, LIST_MEMBERS_MAX, VARY_NAMES_MAX
from retter.http.cache_control import parse_cache_control
from retter.http.content_coding import (
    CODINGS,
    IDENTITY,
    Negotiator,
    WeakenedTags,
    reduced_accept_encoding,
    varies_already,
    weights,
)
from retter.http.forwarding import Trust
from retter.http.message import RequestHead
from retter.http.request_parser import RequestParser
from retter.http.response_parser import parse_response
from retter.http.variants import VariantRules
from retter.store.conditional import answer
from retter.store.record import facts_of, vary_names_of
from tests.store.test_conditional import stored
from tests.support.harness import FakeProxy, get, reply, status_of

MANY = b",".join([b"a%d" % n for n in range(LIST_MEMBERS_MAX)])  # as many as are looked at


def parse(*lines: bytes, fields_max: int = 128, form_bytes_max: int = 100_000) -> RequestHead:
    parser = RequestParser(
        fields_max=fields_max,
        target_bytes_max=1000,
        instance=b"me",
        trusted=False,
        form_bytes_max=form_bytes_max,
    )
    return parser.parse(b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", *lines, b"", b""]))


def test_accept_encoding() -> None:
    last = b"gzip," + MANY.rpartition(b",")[0]
    assert weights(last)[b"gzip"] == 1000
    assert weights(last + b",b") == {}
    assert Negotiator(CODINGS).accepted(parse(b"Accept-Encoding: " + last)).forwarded == b"gzip"
    assert Negotiator(CODINGS).accepted(parse(b"Accept-Encoding: " + last + b",b")) == IDENTITY
    assert reduced_accept_encoding([last], (b"gzip",)) == [b"gzip"]
    assert reduced_accept_encoding([last + b",b"], (b"gzip",)) == [b"identity"]
    assert reduced_accept_encoding([b"gzip", last, b""], (b"gzip",)) == [b"identity", b"", b""]


def test_an_accept_encoding_of_commas_alone_says_nothing() -> None:
    assert reduced_accept_encoding([b", ,", b"br"], (b"gzip",)) == [b"identity", b""]
    assert reduced_accept_encoding([b", ,", b""], (b"gzip",)) == [b", ,", b""]


def test_cache_control() -> None:
    last = b"max-age=5," + MANY.rpartition(b",")[0]
    assert parse_cache_control(last).max_age_s == 5
    assert not parse_cache_control(last).no_store
    assert parse_cache_control(last + b",b").no_store
    assert parse_cache_control(last + b",b").no_transform
    assert parse_cache_control(b"max-age=5" + b", " * (LIST_MEMBERS_MAX - 1)).max_age_s == 5
    assert parse_cache_control(b" " * 5000 + b"max-age=5" + b"\t" * 5000).max_age_s == 5


@pytest.mark.parametrize("field", [b"Connection", b"TE", b"Upgrade", b"connection"])
@pytest.mark.parametrize("form_bytes_max", [0, 100_000])
def test_what_decides_about_the_connection(field: bytes, form_bytes_max: int) -> None:
    """Too many are refused, whether the head is read by form or by h11."""
    parse(field + b": " + MANY, form_bytes_max=form_bytes_max)
    for lines in ([field + b": " + MANY + b",b"], [field + b": " + MANY, field + b": b,c"]):
        with pytest.raises(BadRequest) as refused:
            parse(*lines, form_bytes_max=form_bytes_max)
        assert refused.value.status == 431


def test_commas_elsewhere_do_not_matter() -> None:
    parse(b"Accept: " + MANY * 3, b"Connection: close", b"X: " + MANY * 3)


def test_an_answers_connection() -> None:
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
    assert not parse_response(start + b"Connection: close," + MANY[:-5] + b"\r\n\r\n").keep_alive
    for field in (b"Connection", b"upgrade"):
        with pytest.raises(UpstreamMalformed):
            parse_response(start + field + b": " + MANY + b",b\r\n\r\n")


@pytest.mark.parametrize("form_bytes_max", [0, 100_000])
def test_fields_are_counted_before_they_are_read(form_bytes_max: int) -> None:
    """A head of very many fields is refused for that, whatever else is wrong with them."""
    for line in (b"a:b", b"a:" + b"b" * 1024):
        assert len(parse(*[line] * 9, fields_max=10, form_bytes_max=form_bytes_max).fields) == 10
        for lines in ([line] * 10, [line] * 9 + [b"no field"], [line] * 10_000):
            with pytest.raises(BadRequest) as refused:
                parse(*lines, fields_max=10, form_bytes_max=form_bytes_max)
            assert refused.value.status == 431


def test_entity_tags() -> None:
    def status(tags: bytes) -> int:
        asked = parse(b"If-None-Match: " + tags)
        return answer(asked, stored(etag=b'"a"')).status

    tags = b",".join([b'"%d"' % n for n in range(LIST_MEMBERS_MAX - 1)])
    assert status(tags + b',"a"') == 304
    assert status(tags + b',"b","a"') == 200


def test_tags_that_come_back() -> None:
    weakened = WeakenedTags()
    weakened.add(b'"a"')
    tags = b",".join([b'W/"%d"' % n for n in range(LIST_MEMBERS_MAX - 1)])
    head = b"GET / HTTP/1.1\r\nIf-None-Match: " + tags
    assert weakened.restored(head + b',W/"a"\r\n') == head + b',"a"\r\n'
    assert weakened.restored(head + b',W/"b",W/"a"\r\n') == head + b',W/"b",W/"a"\r\n'


def test_vary() -> None:
    names = b",".join([b"n%d" % n for n in range(VARY_NAMES_MAX)])
    assert len(vary_names_of(names, False) or ()) == VARY_NAMES_MAX
    assert vary_names_of(names + b",b", False) is None
    assert facts_of(((b"vary", names), (b"vary", b"b")), 1.0, shared=False) is None
    assert varies_already(b"vary", b"accept-encoding," + names)
    assert not varies_already(b"vary", b"accept-encoding," + MANY)


def test_codings_of_a_stored_answer() -> None:
    codings = b",".join([b"gzip"] * CODINGS_MAX)
    assert facts_of(((b"content-encoding", codings),), 1.0, shared=False) is not None
    assert facts_of(((b"content-encoding", codings + b",gzip"),), 1.0, shared=False) is None


def test_forwarded() -> None:
    """None of very many elements is left out of the variant key."""
    rules = VariantRules()
    few = b"for=_a;proto=http," * (LIST_MEMBERS_MAX // 2 - 1)
    key = rules.variant_key(((b"forwarded", few),))
    assert rules.variant_key(((b"forwarded", few + b"for=_b"),)) == key
    keys = {rules.variant_key(((b"forwarded", few + b"for=1;for=2;for=%d" % n),)) for n in range(3)}
    assert len(keys) == 3


def test_hops() -> None:
    trust = Trust([ipaddress.ip_network("10.0.0.0/8")], unix=False)
    ours = [b"10.0.0.%d" % n for n in range(FORWARDED_HOPS_MAX)]
    hops = b", ".join([b"192.0.2.1", *ours[1:]])
    assert trust.client_of(hops, "10.9.9.9") == "192.0.2.1"
    assert trust.client_of(b"6.6.6.6, " + hops, "10.9.9.9") == "192.0.2.1"
    assert trust.client_of(b", ".join([b"192.0.2.1", *ours]), "10.9.9.9") == "10.0.0.0"
    assert trust.client_of(b"10.0.0.1," * 5000 + hops, "10.9.9.9") == "192.0.2.1"


def test_through_the_proxy() -> None:
    """A request that is not read whole is forwarded as it came, and answered."""
    proxy = FakeProxy()
    cookies = "; ".join(f"_ga_{n}=1" for n in range(300))
    for path, headers in (
        ("/", {"Cookie": cookies}), ("/?" + "a&" * 600, {}),
        ("/", {"Cache-Control": "a," * 500}), ("/", {"If-None-Match": '"a",' * 500}),
    ):  # fmt: skip
        client = proxy.client(get(path, headers=headers))
        asked = proxy.upstream.received()
        assert asked.startswith(f"GET {path} HTTP/1.1\r\n".encode())
        assert all(value.encode() in asked for value in headers.values())
        proxy.upstream.sends(reply(b"for one alone"))
        assert status_of(client.received()) == 200
    # Nobody else gets what was for these, though everyone's cookies would be ignored.
    proxy.client(get())
    assert proxy.upstream.received().startswith(b"GET / HTTP/1.1\r\n")
