"""Memory that is freed goes back to the system, and the collector has little to look at."""

import gc
import subprocess
import sys

import pytest

from retter.process.memory import ALL_LOOKS, GC_YOUNG_MAX, OLDER_LOOKS, YoungObjects
from retter.store.record import StoredResponse
from retter.store.store import YOUNG_MAX
from tests.support.heads import request_head as request
from tests.support.heads import response_head as response
from tests.support.stores import make, put


def test_what_starting_has_freed_goes_back_to_the_system() -> None:
    code = """
import re
from retter.process.memory import give_back_freed_memory

def resident_kib():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmRSS:\\s+(\\d+)", status.read())[1])

blocks = [bytes(4000) for _ in range(10_000)]
last = blocks.pop()
del blocks
before = resident_kib()
give_back_freed_memory()
print(before - resident_kib())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) > 30_000


def test_the_collector_looks_at_older_objects_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    generations: list[int] = []
    monkeypatch.setattr(gc, "collect", generations.append)
    young = YoungObjects()
    for _ in range(ALL_LOOKS):
        young.look_through()
    assert generations[: OLDER_LOOKS + 2] == [*[0] * OLDER_LOOKS, 1, 0]
    assert (generations.count(0), generations[-1]) == (ALL_LOOKS, 2)
    assert generations.count(1) == ALL_LOOKS // OLDER_LOOKS - 1


@pytest.mark.parametrize("equal", [True, False])
def test_responses_that_replace_others_do_not_pile_up_for_the_collector(equal: bool) -> None:
    """None of them makes more objects than it frees, so the collector would not look at them."""
    rounds, pages = 3, 10 * YOUNG_MAX
    gc.collect()
    thresholds = gc.get_threshold()
    gc.set_threshold(GC_YOUNG_MAX, 20, 20)
    try:
        store = make()
        store.look_through = YoungObjects().look_through
        given = response()
        for number in range(rounds * pages + 5):
            body = b"" if equal else b"%d" % number
            put(store, request(target=b"/%d" % (number % pages)), given, body)
        young = [one for one in gc.get_objects(generation=0) if type(one) is tuple]
        records = [one for one in young if len(one) == len(StoredResponse._fields)]
    finally:
        gc.set_threshold(*thresholds)
    stats = store.stats()
    assert (stats["keys"], bool(stats["unchanged"])) == (pages, equal)
    assert len(records) <= YOUNG_MAX
