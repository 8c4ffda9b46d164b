"""The memory that workers share: words, blocks, and what becomes of a dead worker's slot."""

import mmap
import os
from itertools import pairwise
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.shared_memory import bytes_for, divided, places_of
from retter.config.settings import WORKERS_MAX
from retter.judgement.memory import (
    HEARTBEAT,
    IN_FLIGHT,
    INCARNATION,
    PLACES_MAX,
    SLOT_BYTES,
    TABLES_NUMBERS,
    WAITING,
    Memory,
    bytes_needed,
)

WRITES = 3000


def _memory(workers: int = 2) -> Memory:
    return Memory(bytearray(bytes_needed(workers)), workers)


def test_memory_that_is_all_zero_says_that_nobody_has_begun() -> None:
    """No block was written, and no worker lives."""
    memory = _memory()
    for slot in memory.slots:
        assert slot.figures.read() is None
        assert slot.report.read() is None
        assert not memory.lives(slot.index, 0.0, 1.0)


@given(st.lists(st.floats(allow_nan=False), max_size=TABLES_NUMBERS))
def test_a_block_gives_back_what_was_written(numbers: list[float]) -> None:
    """Also no numbers at all, and infinity."""
    memory = _memory()
    slots = memory.slots
    serial = slots[0].tables.write(numbers)
    assert slots[0].tables.read() == (serial, tuple(numbers))
    assert slots[1].tables.read() is None, "the next slot is untouched"


def test_each_write_has_a_serial_number_of_its_own() -> None:
    """So a reader sees at one word that there is something new."""
    block = _memory().slots[0].figures
    serials = [block.write([float(number)]) for number in range(5)]
    assert all(after > before for before, after in pairwise(serials))
    assert block.serial == serials[-1]
    assert not any(serial & 1 for serial in serials)


def test_a_block_has_an_end() -> None:
    """More numbers than it has room for are an error, not the next block's."""
    with pytest.raises(ValueError, match="room for"):
        _memory().slots[0].tables.write([nan] * (TABLES_NUMBERS + 1))


def test_a_block_whose_writer_died_half_way_is_not_read() -> None:
    """Neither one that is marked as being written, nor one whose octets do not belong together."""
    memory = _memory()
    block = memory.slots[0].figures
    block.write([1.0, 2.0])
    memory.words[block.word] += 1
    assert block.read() is None
    memory.words[block.word] += 1
    assert block.read() is not None
    memory.floats[block.word + 3] = 9.0
    assert block.read() is None


def test_the_next_process_writes_over_what_its_predecessor_left_half_written() -> None:
    """The serial number becomes even again."""
    memory = _memory()
    block = memory.slots[0].figures
    block.write([1.0])
    memory.words[block.word] += 1
    serial = block.write([2.0])
    assert block.read() == (serial, (2.0,))


def test_a_reader_beside_a_writer_never_sees_two_writes_mixed() -> None:
    """Another process writes as fast as it can; each write has one number all over."""
    with mmap.mmap(-1, bytes_needed(1)) as shared:
        child = os.fork()
        if not child:
            block = Memory(shared, 1).slots[0].tables
            for number in range(1, WRITES + 1):
                block.write([float(number)] * (number % TABLES_NUMBERS))
            block.write([inf])
            os._exit(0)
        memory = Memory(shared, 1)
        block = memory.slots[0].tables
        seen, last = 0, 0.0
        while last != inf:
            read = block.read()
            if read is None or not read[1]:
                continue
            seen += 1
            numbers = read[1]
            assert numbers[0] >= last, "time goes on"
            last = numbers[0]
            assert set(numbers) == {last}
            assert len(numbers) == (1 if last == inf else int(last) % TABLES_NUMBERS)
        assert os.waitpid(child, 0)[1] == 0
        assert seen
        block = None  # type: ignore[assignment]
        memory.floats.release()
        memory.words.release()
        for slot in memory.slots:
            slot.marks.release()
        memory.octets.release()


def test_a_worker_that_ended_has_nothing_in_flight() -> None:
    """Its parent takes note; the next process of that worker has another incarnation."""
    memory = _memory()
    memory.begin(0)
    word = memory.slots[0].word
    assert not memory.lives(0, 5.0, 1.0), "its figures may be old ones"
    memory.floats[word + HEARTBEAT] = 5.0
    memory.words[word + IN_FLIGHT] = 7
    memory.words[word + WAITING] = 2
    assert memory.lives(0, 5.5, 1.0)
    memory.vacate(0)
    assert not memory.lives(0, 5.5, 1.0)
    assert memory.words[word + IN_FLIGHT] == memory.words[word + WAITING] == 0
    memory.begin(0)
    assert memory.words[word + INCARNATION] == 2


def test_slots_begin_on_a_line_of_the_cache() -> None:
    """Two workers never write to one line."""
    assert SLOT_BYTES % 64 == 0


@pytest.mark.parametrize("workers", [0, PLACES_MAX + 1])
def test_the_number_of_workers_is_bounded(workers: int) -> None:
    """One to sixty-four."""
    with pytest.raises(ValueError, match="workers"):
        bytes_needed(workers)


def test_the_memory_of_the_workers_has_room_for_it() -> None:
    """The supervisor maps it before anybody knows of breakers."""
    for workers in (1, 2, WORKERS_MAX):
        places = places_of(workers)
        shared = divided(memoryview(bytearray(bytes_for(2))), 2).judgement
        assert shared.nbytes // places_of(2) * places >= bytes_needed(places)


def test_memory_that_is_too_small_is_refused() -> None:
    """At once, not when somebody writes beyond its end."""
    with pytest.raises(ValueError, match="octets"):
        Memory(bytearray(1024), 1)
