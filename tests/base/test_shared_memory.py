"""The memory that all workers share."""

from retter.base.shared_memory import (
    FIGURES_BYTES,
    JUDGEMENT_BYTES,
    NEWS_BYTES,
    bytes_for,
    divided,
    places_of,
)


def test_the_parts_cover_the_memory_and_do_not_overlap() -> None:
    workers = 3
    memory = bytearray(bytes_for(workers))
    shared = divided(memoryview(memory), workers)
    parts = [
        shared.secrets,
        memoryview(shared.beats),
        shared.judgement,
        *shared.news,
        *shared.figures,
    ]
    assert sum([part.nbytes for part in parts]) <= len(memory)
    for number, part in enumerate(parts):
        octets = part.cast("B")
        octets[0] = octets[-1] = number + 1
    assert [part.cast("B")[0] for part in parts] == [*range(1, len(parts) + 1)]
    assert [part.cast("B")[-1] for part in parts] == [*range(1, len(parts) + 1)]


def test_each_place_has_a_piece_of_each_part() -> None:
    shared = divided(memoryview(bytearray(bytes_for(2))), 2)
    assert places_of(2) == len(shared.news) == len(shared.figures) == 4
    assert shared.judgement.nbytes == 4 * JUDGEMENT_BYTES
    assert {part.nbytes for part in shared.news} == {NEWS_BYTES}
    assert {part.nbytes for part in shared.figures} == {FIGURES_BYTES}


def test_a_worker_shows_that_it_is_alive_and_no_other() -> None:
    shared = divided(memoryview(bytearray(bytes_for(2))), 2)
    shared.beat(1, 12.5)
    assert [shared.last_beat(place) for place in range(4)] == [0.0, 12.5, 0.0, 0.0]
