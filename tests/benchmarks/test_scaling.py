"""What several workers carry: the arithmetic."""

import pytest

from benchmarks.scaling import Ratios, Window, middle


def test_what_several_carry_is_their_number_by_what_sharing_costs_and_the_spread() -> None:
    one = Window(requests=100_000, seconds=2.0, cpu_s=[1.0], connections=[64])
    assert one.rate == 50_000 and one.us == pytest.approx(10.0) and one.balance == 1.0
    several = Window(requests=150_000, seconds=2.0, cpu_s=[0.9, 0.7], connections=[40, 24])
    assert several.balance == pytest.approx(0.8)
    ratios = Ratios()
    ratios.add(one, several)
    assert ratios.rates == [1.5]
    assert ratios.cpu == [pytest.approx(16 / 15)]
    # The busier one is full when it serves 5/8: two cores by 16/15, and a fifth less.
    assert ratios.carried == [pytest.approx(2 / (16 / 15) * 0.8)]


def test_the_median_is_one_of_the_rounds() -> None:
    assert middle([3.0, 1.0, 2.0]) == 2.0
