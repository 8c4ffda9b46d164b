"""The outbox is bounded, with the messages that may have to be told again."""

from retter.far.outbox import TELL_AGAIN_S, UNTOLD_MARKS_BYTES_MAX, UNTOLD_MAX, Outbox
from retter.store.write_behind import Removals


def tell(outbox: Outbox, removals: Removals, at: float) -> None:
    """Tell removals to a server that gets them."""
    outbox.removed(removals)
    outbox.take()
    outbox.done(at)


def test_what_was_told_long_ago_is_forgotten() -> None:
    outbox = Outbox("box")
    for number in range(100):
        tell(outbox, Removals(keys={b"*a.b/%d" % number}), float(number))
    assert len(outbox._told) == TELL_AGAIN_S + 1
    outbox.again(99.0)
    assert outbox.untold.keys == {b"*a.b/%d" % number for number in range(69, 100)}


def test_marks_of_more_changed_urls_than_can_be_told_again_are_not_remembered() -> None:
    """Each may be 16 KB long, and any stranger can send a POST."""
    outbox = Outbox("box")
    for number in range(10):
        some = {b"*a.b/%d" % (number * 1000 + one) for one in range(1000)}
        tell(outbox, Removals(superseded=some, owners={b"%d" % number}), number / 10)
    assert sum([len(one.removals.superseded) for _, one in outbox._told]) <= UNTOLD_MAX
    outbox.again(1.0)
    assert outbox.untold.owners == {b"%d" % number for number in range(10)}


def test_marks_of_long_urls_that_wait_are_bounded_in_octets() -> None:
    """Each POST to a URL of 16 KB leaves one, while the server is away."""
    outbox = Outbox("box")
    for number in range(1000):
        key = b"*a.b/%d" % number + b"x" * 16_000
        outbox.removed(Removals(superseded={key}, owners={b"%d" % number}))
        outbox.removed(Removals(superseded={key}))  # the same counts once
        if number % 10 == 0:
            outbox.take()
            outbox.failed()
        assert sum(map(len, outbox.untold.superseded)) <= UNTOLD_MARKS_BYTES_MAX
    assert outbox.lost
    assert len(outbox.untold.owners) == 1000
    assert outbox.untold.superseded
