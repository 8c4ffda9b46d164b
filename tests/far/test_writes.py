"""The keys that wait to be written are bounded, whatever changes in between."""

from retter.far.writes import WAITING_MAX, WRITE_EQUAL_S, Writes
from retter.store.store import ResponseStore, StoreRules
from retter.store.write_behind import Removals
from tests.support.heads import response_head as response
from tests.support.stores import SECRET, request, who


def test_a_page_that_is_changed_again_and_again_waits_once() -> None:
    store = ResponseStore(StoreRules(secret=SECRET))
    page = request(target=b"/page")
    key = who(page).key
    store.put(who(page), page, response(), b"page", 1.0, 1.0)
    writes = Writes(personal=True)
    writes.slot_of = lambda key: (store.shelves.slots.get(key, ()), ())
    now = 1.0
    writes.changed(key)
    writes.take_due(now, [])
    for _ in range(3 * WAITING_MAX):
        writes.changed(key)  # it is the same, and waits
        assert not writes.take_due(now, [])
        writes.removed(Removals(superseded={key}))  # a POST: it waits no longer
        assert [one for one, _, _ in writes.take_due(now, [])] == [key]
    writes.changed(key)
    assert len(writes) == 1
    assert len(writes._later_order) <= 2 * WAITING_MAX
    assert writes.take_due(now + WRITE_EQUAL_S, []), "it is written in the end"
