"""The cost of fairness while there is enough for all: a fiftieth at most, in instructions."""

from collections.abc import Callable

import pytest

from tests.proxy.test_forwarding_cost import FORM, cost, page
from tests.proxy.test_stored_cost import WARMING, Site, head

MOST = 1.02  # of what the same takes with it switched off


@pytest.mark.parametrize(
    "request_of",
    [lambda _: page(1), page, lambda _: FORM],
    ids=["a head that comes again", "a new head", "a form"],
)
def test_a_forwarded_request_costs_what_it_does_without(request_of: Callable[[int], bytes]) -> None:
    assert cost(request_of, fairness="on") <= MOST * cost(request_of, fairness="off")


@pytest.mark.parametrize("seen", [1, 99], ids=["a head that comes again", "a new head"])
def test_a_stored_answer_costs_what_it_does_without(seen: int) -> None:
    def costs(fairness: str) -> int:
        site = Site(fairness=fairness)
        for number in range(WARMING):
            site.cost(head(1))
            site.cost(head(number))
        return site.cost(head(seen))

    assert costs("on") <= MOST * costs("off")
