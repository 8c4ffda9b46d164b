"""The memo: never wrong, bounded, and what is asked for stays."""

from hypothesis import given
from hypothesis import strategies as st

from retter.http.memo import HEADS_NOTED_MAX, SEEN_MAX, HeadNotes, Memo

KEYS = st.integers(0, 30).map(lambda number: b"key %d" % number)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "offer", "get"]), KEYS),
        st.tuples(st.just("resize"), st.integers(0, 4000)),
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=200,
)


def memo_of(bytes_max: int = 4000, key_bytes_max: int = 100) -> Memo[bytes]:
    return Memo(bytes_max, cost_per_byte=2, entry_bytes=100, key_bytes_max=key_bytes_max)


def cost(memo: Memo[bytes]) -> int:
    return sum(2 * len(key) + 100 for key in (*memo.young, *memo.old))


@given(bytes_max=st.integers(0, 4000), steps=STEPS)
def test_what_is_found_is_what_was_put(
    bytes_max: int, steps: list[tuple[str, bytes | int]]
) -> None:
    """Whatever happens in between; and a memo never takes more than it may."""
    memo = memo_of(bytes_max)
    largest = bytes_max
    for step, argument in steps:
        if isinstance(argument, int):
            memo.resize(argument) if step == "resize" else memo.clear()
            largest = 0 if step == "clear" else largest
        elif step == "get":
            assert memo.get(argument) in (None, b"value of " + argument)
        else:
            getattr(memo, step)(argument, b"value of " + argument)
        largest = max(largest, memo.bytes_max)
        assert cost(memo) <= largest


def test_each_question_is_a_hit_or_a_miss() -> None:
    memo = memo_of()
    assert memo.get(b"a") is None
    memo.put(b"a", b"1")
    assert memo.get(b"a") == memo.get(b"a") == b"1"
    assert (memo.hits, memo.misses, len(memo)) == (2, 1, 1)


def test_what_is_asked_for_again_survives_what_is_not() -> None:
    memo = memo_of()
    memo.put(b"wanted", b"1")
    for number in range(1000):
        memo.put(b"%d" % number, b"x")
        assert memo.get(b"wanted") == b"1"
    assert memo.get(b"0") is None, "it has made room"


def test_an_old_entry_that_is_asked_for_is_young_again() -> None:
    memo = memo_of(bytes_max=2 * (2 + 100))  # two dicts with room for one entry each
    memo.put(b"a", b"1")
    memo.put(b"b", b"2")
    assert (list(memo.young), len(memo)) == ([b"b"], 2)
    assert memo.get(b"a") == b"1"
    assert (list(memo.young), len(memo)) == ([b"a"], 2)


def test_what_is_too_long_is_not_remembered() -> None:
    memo = memo_of(key_bytes_max=3)
    memo.put(b"1234", b"x")
    memo.put(b"123", b"x")
    assert (memo.get(b"1234"), memo.get(b"123")) == (None, b"x")
    tiny = memo_of(bytes_max=2 * 103)
    tiny.put(b"12", b"x")
    assert len(tiny) == 0, "an entry of 104 bytes is more than half of all"


def test_only_what_comes_again_is_kept() -> None:
    memo = memo_of()
    memo.offer(b"a", b"1")
    assert memo.get(b"a") is None
    memo.offer(b"a", b"1")
    assert memo.get(b"a") == b"1"


def test_what_has_come_once_is_forgotten_in_time() -> None:
    memo = memo_of()
    memo.offer(b"first", b"1")
    for number in range(20 * SEEN_MAX):  # one in a thousand million leaves a place as it is
        memo.offer(b"%d" % number, b"x")
    assert memo._seen is not None and len(memo._seen) == SEEN_MAX
    memo.offer(b"first", b"1")
    assert memo.get(b"first") is None


def test_nothing_is_left_after_clearing() -> None:
    memo = memo_of()
    memo.offer(b"seen", b"1")
    memo.put(b"a", b"1")
    memo.clear()
    memo.offer(b"seen", b"1")
    assert len(memo) == 0


def test_notes_about_heads_are_bounded_and_go_by_the_head_itself() -> None:
    notes: HeadNotes[object, int] = HeadNotes()
    heads = [object() for _ in range(3 * HEADS_NOTED_MAX)]
    for number, head in enumerate(heads):
        assert notes.note(head, number) == number
        assert notes.known[head] == number
        assert len(notes.known) <= HEADS_NOTED_MAX
    assert heads[0] not in notes.known, "it is found out again when it is needed"
