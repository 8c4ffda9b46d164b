"""The site that tests ask: an answer comes, or the test ends."""

import gzip
import os

import pytest

from tests.support.site import Asked, Site, page


def test_a_page_that_is_decoded_in_a_thread_is_answered() -> None:
    body = os.urandom(100_000).hex()
    coded = gzip.compress(body.encode()).decode("latin-1")
    site = Site(lambda asked: page(coded, Content_Encoding="gzip", Vary="Accept-Encoding"))
    assert site.ask(headers={"Accept-Encoding": "gzip"}).body == coded
    site.goes_down()
    got = site.ask()
    assert got.stored and got.body == body


def test_an_application_that_never_answers_ends_the_test() -> None:
    def silent(asked: Asked) -> bytes:
        return b""

    site = Site(silent, upstream_timeout_s=600.0)
    with pytest.raises(AssertionError, match="GET /late gets no answer"):
        site.ask("/late")
