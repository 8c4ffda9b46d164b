"""The pages that keep the application busy, against counting them all."""

from hypothesis import given
from hypothesis import strategies as st

from retter.admin.busiest import HALF_LIFE_S, PAGE_BYTES_MAX, PAGES_MAX, SHOWN, BusiestPages


def test_a_page_in_half_of_the_looks_occupies_half_a_place() -> None:
    pages = BusiestPages()
    for second in range(1000):
        often = [b"shop/slow?x=%d" % second, b"shop/slow?y"]
        pages.look([*often, b"shop/"] if second % 2 else often)
    first, second_page = pages.document()
    assert first["url"] == "shop/slow", "without its query"
    assert abs(first["places"] - 2.0) < 0.01
    assert abs(second_page["places"] - 0.5) < 0.02
    assert abs(first["share"] - 0.8) < 0.01


def test_what_is_over_is_forgotten() -> None:
    pages = BusiestPages()
    for _ in range(600):
        pages.look([b"a/old"] * 5)
    for _ in range(HALF_LIFE_S):
        pages.look([b"a/new"] * 5)
    assert [one["url"] for one in pages.document()] == ["a/new", "a/old"]
    for _ in range(20 * HALF_LIFE_S):
        pages.look([])
    assert pages.document() == []


def test_nothing_in_flight_is_no_division_by_nothing() -> None:
    assert BusiestPages().document() == []
    pages = BusiestPages()
    pages.look([])
    assert pages.document() == []


@given(st.lists(st.lists(st.binary(max_size=300), max_size=40), max_size=40))
def test_any_urls_stay_within_the_limits(looks: list[list[bytes]]) -> None:
    pages = BusiestPages()
    for look in looks:
        pages.look(look)
    assert len(pages) <= PAGES_MAX
    shown = pages.document()
    assert len(shown) <= SHOWN
    assert all(len(one["url"]) <= PAGE_BYTES_MAX for one in shown)
    assert sum([one["share"] for one in shown]) <= 1.01


def test_a_crawl_does_not_displace_what_is_busy() -> None:
    pages = BusiestPages()
    for second in range(50):
        pages.look([b"a/busy"] * 3 + [b"a/%d-%d" % (second, number) for number in range(20)])
    assert pages.document()[0]["url"] == "a/busy"
