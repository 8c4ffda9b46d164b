"""The rolling window against a model that keeps every outcome."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.breaker.window import RollingWindow

EVENTS = st.lists(
    st.tuples(st.sampled_from(["pass", "fail", "advance"]), st.integers(0, 30)), max_size=60
)


@given(events=EVENTS, buckets=st.integers(1, 6), bucket_s=st.sampled_from([0.25, 0.5, 2.0]))
def test_counts_are_those_of_the_youngest_buckets(
    events: list[tuple[str, int]], buckets: int, bucket_s: float
) -> None:
    """At every moment the counts equal a count over all outcomes ever recorded."""
    window = RollingWindow(0.0, buckets=buckets, bucket_s=bucket_s)
    now, newest = 0.0, 0
    recorded: list[tuple[int, bool]] = []
    for what, quarters in events:
        if what == "advance":
            now += quarters * bucket_s / 4
            newest = int(now / bucket_s)
            window.advance(now)
        else:
            recorded.append((newest, what == "pass"))
            if what == "pass":
                window.passed += 1
            else:
                window.failed += 1
        kept = [passed for bucket, passed in recorded if bucket > newest - buckets]
        assert window.passed == kept.count(True)
        assert window.failed == kept.count(False)
        assert window.outcomes == len(kept)


def test_failing_needs_volume_and_ratio() -> None:
    """Half of ten is failing, half of nine and four of ten are not."""
    window = RollingWindow(0.0, buckets=2, bucket_s=1.0)
    for _ in range(5):
        window.passed += 1
    for _ in range(4):
        window.failed += 1
    assert not window.failing(volume=10, ratio=0.5)
    window.failed += 1
    assert window.failing(volume=10, ratio=0.5)
    window.passed += 1
    assert not window.failing(volume=10, ratio=0.5)


def test_time_that_goes_back_changes_nothing() -> None:
    """The newest bucket stays the newest."""
    window = RollingWindow(10.0, buckets=2, bucket_s=1.0)
    window.failed += 1
    window.advance(5.0)
    window.advance(10.9)
    assert window.failed == 1


def test_clear_forgets_everything() -> None:
    """And recording goes on."""
    window = RollingWindow(0.0, buckets=3, bucket_s=1.0)
    window.failed += 1
    window.passed += 1
    window.clear()
    assert window.outcomes == 0
    window.passed += 1
    window.advance(1.0)
    assert window.passed == 1


@pytest.mark.parametrize(("buckets", "bucket_s"), [(0, 1.0), (1, 0.0), (1, -1.0)])
def test_a_window_of_nothing_is_refused(buckets: int, bucket_s: float) -> None:
    """Both the number and the length have to be positive."""
    with pytest.raises(ValueError, match="rolling window"):
        RollingWindow(0.0, buckets=buckets, bucket_s=bucket_s)
