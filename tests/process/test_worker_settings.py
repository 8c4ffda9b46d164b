"""The share of the settings that each of several workers gets."""

import pytest

from retter.config.settings import ConfigError, Settings
from retter.process.worker_settings import near_bytes, share_of

MIB = 1 << 20


def test_the_shares_of_all_workers_are_at_least_the_whole_and_little_more() -> None:
    whole = Settings(upstream=":1", connections_max=1001, pool_size=33, queue_max=10)
    for workers in (2, 3, 7):
        shares = [share_of(whole, workers, index=index) for index in range(workers)]
        for field in ("connections_max", "pool_size", "queue_max", "buffer_memory_bytes"):
            sum_of_all = sum([getattr(one, field) for one in shares])
            assert 0 <= sum_of_all - getattr(whole, field) < workers, field


def test_what_may_be_in_flight_is_the_same_for_each_because_they_count_together() -> None:
    whole = Settings(upstream=":1", max_in_flight=9, limit_start=7)
    share = share_of(whole, 4, index=0)
    assert (share.max_in_flight, share.limit_start) == (9, 7)


def test_only_the_first_worker_has_the_admin_listener() -> None:
    whole = Settings(upstream=":1", admin="127.0.0.1:0")
    assert [share_of(whole, 3, index=index).admin for index in range(3)] == [
        "127.0.0.1:0",
        "off",
        "off",
    ]


def test_a_worker_is_a_single_process_to_itself() -> None:
    assert share_of(Settings(upstream=":1", workers=4), 4, index=3).workers == 1


def test_memory_near_the_workers_is_the_whole_with_a_disk_and_else_a_quarter() -> None:
    whole = Settings(upstream=":1", store_memory_bytes=64 * MIB)
    assert near_bytes(whole, 4) == 4 * MIB
    disk = Settings(upstream=":1", store_memory_bytes=64 * MIB, store="somewhere")
    assert near_bytes(disk, 4) == 16 * MIB


def test_a_store_that_is_too_small_for_so_many_workers_is_refused() -> None:
    whole = Settings(upstream=":1", store_memory_bytes=16 * MIB)
    assert near_bytes(whole, 4) == MIB
    with pytest.raises(ConfigError, match="at least 20MiB"):
        near_bytes(whole, 5)
    nothing = Settings(upstream=":1", store_memory_bytes=0, store_object_bytes_max=0)
    assert near_bytes(nothing, 64) == 0
