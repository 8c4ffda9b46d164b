"""The history in the folder of the store: written, read again, and never trusted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.admin.archive import FILE, SAVE_EVERY_S, Archive, packed, unpack
from retter.admin.chart import RATES, Chart
from retter.admin.incidents import Incidents, Totals
from retter.admin.situation import Situation
from retter.breaker import State

BAD = Situation(
    row="down",
    tone="bad",
    now="Nothing answers.",
    visitors="They wait.",
    retter="It tries again.",
    you="Start it.",
)
RATES_NOW = dict.fromkeys(RATES, 2.5)


class Folder:
    """Stands for the disk: its files in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.writes = 0
        self.time = 1000.0

    def wall(self) -> float:
        return self.time

    def write_now(self, name: str, data: bytes) -> None:
        self.files[name] = data
        self.writes += 1

    write_soon = write_now

    def read_file(self, name: str, bytes_max: int) -> bytes:
        return self.files.get(name, b"")[:bytes_max]


def archive(folder: Folder) -> tuple[Archive, Chart, Incidents]:
    chart, incidents = Chart(), Incidents()
    disk: Any = folder
    return Archive(disk, chart, incidents, 0.0), chart, incidents


def test_the_next_process_shows_what_the_one_before_has_seen() -> None:
    folder = Folder()
    before, chart, incidents = archive(folder)
    assert not before.restore(), "there is nothing yet"
    for _ in range(120):
        chart.add(RATES_NOW, 12.5, State.OPEN)
    incidents.note(BAD, 1.0, 900.0, Totals(), Totals())
    before.save()
    folder.time += 30
    after, its_chart, its_incidents = archive(folder)
    assert after.restore()
    its_chart.add(RATES_NOW, None, State.CLOSED)
    states = its_chart.document("hour", 0.0)["state"]
    assert states == ["OPEN"] * 120 + [None] * 30 + ["CLOSED"]
    assert its_chart.document("day", 0.0)["p99_ms"] == [12.5, 12.5]
    assert its_incidents.all()[0]["cause"] == "Nothing answers."


def test_it_is_written_each_quarter_of_an_hour() -> None:
    folder = Folder()
    one, _, _ = archive(folder)
    for second in range(int(3 * SAVE_EVERY_S) + 1):
        one.tick(float(second))
    assert folder.writes == 3
    one.save_soon(3 * SAVE_EVERY_S + 10)  # after an incident
    one.tick(4 * SAVE_EVERY_S)
    assert folder.writes == 4, "it has just been written"


def test_a_clock_that_was_set_back_leaves_no_gap() -> None:
    folder = Folder()
    before, chart, _ = archive(folder)
    chart.add(RATES_NOW, None, State.CLOSED)
    before.save()
    folder.time = 10.0
    after, its_chart, _ = archive(folder)
    assert after.restore()
    assert its_chart.document("hour", 0.0)["state"] == ["CLOSED"]


def whole() -> bytes:
    chart, incidents = Chart(), Incidents()
    for _ in range(70):
        chart.add(RATES_NOW, 1.0, State.LIMITING)
    incidents.note(BAD, 1.0, 900.0, Totals(), Totals())
    return packed(chart, incidents, 50.0)


WHOLE = whole()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"format": 1', b'"format": 2'),
        (b'"byte_order": "', b'"byte_order": "x'),
        (b'"incidents": [{"number": 1,', b'"incidents": [{'),
        (b'"incidents": [{', b'"incidents": [7, {'),
        (b'"at": ', b'"when": '),
        (b"{", b"["),
        (b"{", b"[" * 200_000),
        (b'"at": 50.0', b'"at": -1e999'),
        (b'"tone": "bad"', b'"tone": 77777'),
        (b'"lasted_s": 0.0', b'"lasted_s": NaN'),
    ],
    ids=lambda octets: octets[:20].decode(),
)
def test_a_history_of_another_kind_is_left_out(old: bytes, new: bytes) -> None:
    assert old in WHOLE
    folder = Folder()
    folder.files[FILE] = WHOLE.replace(old, new, 1)
    one, chart, incidents = archive(folder)
    assert not one.restore()
    assert (chart.document("hour", 0.0)["state"], incidents.count) == ([], 0)


@given(data=st.data())
def test_a_broken_file_changes_nothing_or_only_figures(data: st.DataObject) -> None:
    octets = bytearray(WHOLE)
    for place in data.draw(st.lists(st.integers(0, len(octets) - 1), min_size=1, max_size=3)):
        octets[place] ^= 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.integers(0, len(octets)))
    folder = Folder()
    folder.files[FILE] = bytes(octets[: cut or None])
    one, chart, _ = archive(folder)
    before = chart.document("hour", 0.0)
    if not one.restore():
        assert chart.document("hour", 0.0) == before
    chart.add(RATES_NOW, None, State.CLOSED)
    assert chart.document("hour", 0.0)["state"][-1] == "CLOSED"


def test_what_was_packed_is_understood() -> None:
    chart, incidents = Chart(), Incidents()
    unpack(WHOLE, chart, incidents, 50.0)
    assert packed(chart, incidents, 50.0).partition(b"\n")[2] == WHOLE.partition(b"\n")[2]
