"""Two workers that have stored under one key without knowing of each other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retter.disk.database import Database, Done
from retter.store.record import BODY, HEAD, SUPERSEDED, WITHDRAWN, Record
from retter.store.write_behind import Batch, Removals, Written
from tests.store.test_packing import record

NOW, WALL = 1000.0, 1_700_001_000.0
KEY = b"*a.b/page"
PAGE, ERROR = b"x" * 5000, b"Too many connections"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    one = Database(str(tmp_path), 1 << 22)
    one.joins = True
    yield one
    one.close()


def variant(**changes: object) -> Record:
    facts: dict[str, Any] = {
        "body": PAGE, "stored_at": NOW, "age_max_s": 86400.0, "variant_key": b"",
        "vary_names": (), "vary": b"", "content_coding": b"",
    }  # fmt: skip
    return record(KEY, **{**facts, **changes})


def write(
    database: Database, *slot: Record, new: bool = True, whole: bool = False, now: float = NOW
) -> Done:
    waits = Written(slot, (), new=new, whole=whole)
    return database.commit(Batch(Removals(), {KEY: waits}), [], now, WALL + now - NOW)


def stored(database: Database, now: float = NOW) -> list[Record]:
    found = database.read(database.slot_key(KEY), now, WALL + now - NOW, 86400.0)
    return [] if found is None else list(found.variants)


def bodies(database: Database) -> list[bytes]:
    return sorted(one[BODY] for one in stored(database))


def test_a_variant_of_another_worker_stays(database: Database) -> None:
    write(database, variant(variant_key=b"json", body=b"{}"))
    done = write(database, variant())
    assert bodies(database) == [PAGE, b"{}"] and not done.kept
    write(database, variant(body=b"y" * 5000), new=False)
    assert bodies(database) == [b"y" * 5000, b"{}"], "also when a known page has changed"


@pytest.mark.parametrize("new", [True, False])
def test_an_equal_request_replaces_what_was_there(database: Database, new: bool) -> None:
    write(database, variant())
    write(database, variant(body=b"y" * 4000), new=new)
    assert bodies(database) == [b"y" * 4000]


def test_a_device_for_which_the_page_is_the_same_has_no_variant_of_its_own(
    database: Database,
) -> None:
    write(database, variant(soft=(b"de", b"mobile", b"")))
    write(database, variant(soft=(b"de", b"", b"")))
    assert bodies(database) == [PAGE]
    write(database, variant(soft=(b"en", b"", b""), body=b"z" * 5000))
    assert bodies(database) == [PAGE, b"z" * 5000]


def test_an_error_page_that_was_new_to_its_worker_does_not_replace_the_page(
    database: Database,
) -> None:
    write(database, variant())
    done = write(database, variant(body=ERROR))
    assert (done.kept, bodies(database)) == ([KEY], [PAGE])
    done = write(database, variant(body=ERROR), variant(variant_key=b"json", body=b"{}"))
    assert (done.kept, bodies(database)) == ([KEY], [PAGE, b"{}"]), "its other variant is written"
    done = write(database, variant(body=ERROR), new=False)
    assert (done.kept, bodies(database)) == ([], [ERROR, b"{}"]), "that worker has compared them"


def test_what_was_removed_on_purpose_does_not_come_back(database: Database) -> None:
    write(database, variant(), variant(variant_key=b"json", body=b"{}"))
    write(database, variant(), new=False, whole=True)
    assert bodies(database) == [PAGE]
    write(database, variant(age_max_s=WITHDRAWN), new=False)
    write(database, variant(variant_key=b"json", body=b"{}"), new=False)
    assert bodies(database) == [b"{}"], "what the application has withdrawn is not a variant"


def test_what_is_too_old_is_not_kept_as_a_variant(database: Database) -> None:
    write(database, variant(age_max_s=60.0, variant_key=b"json"))
    write(database, variant(stored_at=NOW + 100.0), now=NOW + 100.0)
    assert len(stored(database, NOW + 100.0)) == 1


def test_a_superseded_variant_of_another_worker_stays_superseded(database: Database) -> None:
    write(database, variant(superseded=True, variant_key=b"json", body=b"{}"))
    write(database, variant())
    assert {one[BODY]: one[SUPERSEDED] for one in stored(database)} == {PAGE: False, b"{}": True}


def test_bodies_are_counted_as_often_as_variants_refer_to_them(database: Database) -> None:
    """A count that is too low frees a body that is used; one that is too high never frees it."""
    write(database, variant(variant_key=b"json"))
    write(database, variant(head=b"HTTP/1.1 200 Other\r\n"))
    assert bodies(database) == [PAGE, PAGE] and database.bodies == 1
    assert dict(database.body_counts()) == {name: 2 for name, _ in database.body_counts()}
    for number in range(3):
        write(database, variant(body=b"%d" % number * 4000), new=False)
    assert bodies(database) == [b"2" * 4000, PAGE] and database.bodies == 2
    assert all(count == 1 for _, count in database.body_counts())
    write(database, whole=True)
    assert (stored(database), database.bodies, database.entries) == ([], 0, 0)


def test_no_more_variants_than_a_store_keeps(database: Database) -> None:
    for number in range(15):
        write(database, variant(variant_key=b"%d" % number, body=b"%d" % number))
    assert len(stored(database)) == 10 and b"14" in bodies(database)


def test_one_process_alone_writes_what_it_has(tmp_path: Path) -> None:
    database = Database(str(tmp_path), 1 << 22)
    write(database, variant(variant_key=b"json", body=b"{}"))
    write(database, variant(body=ERROR))
    assert [one[HEAD] for one in stored(database)] == [variant()[HEAD]]
    assert bodies(database) == [ERROR]
    database.close()
