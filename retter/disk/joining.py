"""What two workers have stored under one key, joined when the second of them commits.

Until a worker has committed a page, the others do not know of it. So two of them may store under
one key without knowing of each other: two variants, or a good page and the error page that the next
visitor got in its place (proxy/goodness.py). The later commit must lose neither a variant nor the
good page.
"""

from typing import Final

from retter.store.packing import PackedVariant, may_be_kept
from retter.store.record import BODY, CODING, HEAD, SOFT, STATUS, Record
from retter.store.selection import is_same_request
from retter.store.write_behind import Slot, Written

# As many as under one key in memory (store/rules.py).
VARIANTS_MAX: Final = 10


def without_torsos(waits: Written, others: list[PackedVariant]) -> Slot:
    """Return the variants of a new key to write, beside what another worker has stored meanwhile.

    A response of less than half of the length of the other one may be an error page or a torso.
    The worker that stored it had nothing to compare it with. If it is what the page is now, the
    next response replaces the longer one.
    """
    if not waits.new:
        return waits.slot
    return tuple([one for one in waits.slot if not any(_is_torso(one, it) for it in others)])


def _is_torso(one: Record, other: PackedVariant) -> bool:
    stored = other.record
    return (
        is_same_request(one, stored)
        and one[CODING] == stored[CODING]
        and one[STATUS] == stored[STATUS] == 200
        and 2 * len(one[BODY]) < other.body_bytes
    )


def unknown_variants(
    slot: Slot, names: list[bytes], others: list[PackedVariant]
) -> list[PackedVariant]:
    """Return the variants in the database that a slot to be written does not replace.

    Args:
        slot: What is written.
        names: The name of the body of each of these that may be on disk.
    """
    kept = [one for one in slot if may_be_kept(one)]
    unknown = [
        other
        for other in others
        if not any(
            is_same_request(one, other.record)
            and (
                one[SOFT] == other.record[SOFT]
                # It depends on none of the three, as in store/replacement.py.
                or (name == other.record[BODY] and one[HEAD] == other.record[HEAD])
            )
            for one, name in zip(kept, names, strict=False)
        )
    ]
    return unknown[: max(0, VARIANTS_MAX - len(names))]
