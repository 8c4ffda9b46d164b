"""The sessions that a process knows, as frames for its successor."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from retter.proxy.services import Services
from retter.store.lineage import Facts, Place
from retter.store.owner import OWNER_BYTES
from retter.store.sessions import NAMES_LEARNT_MAX, SHARED_MAX

SESSIONS_PER_FRAME: Final = 200


class Sessions:
    """The known sessions, and a record of those already sent."""

    def __init__(self, services: Services) -> None:
        self._rules = services.owner_rules
        self._sent: dict[object, object] = {}

    def frames(self) -> Iterator[bytes]:
        """Yield the sessions that have not been sent yet, in batches."""
        seen, lineages = self._rules.seen, self._rules.lineages
        yield from self._plain("names", list(seen.names))
        yield from self._plain("rolling", list(lineages.names))
        yield from self._plain("shared", list(seen.shared))
        yield from self._plain("begun", seen.all_issued())
        yield from self._plain("known", seen.known.all_marks())
        values = lineages.all_values()
        for begin in range(0, len(values), SESSIONS_PER_FRAME):
            rows: list[Any] = []
            for value in values[begin : begin + SESSIONS_PER_FRAME]:
                facts = lineages.facts_of(value)
                if facts is not None and self._sent.get(value) != facts:
                    self._sent[value] = facts
                    rows.append(_as_json(facts))
            yield json.dumps({"values": rows}).encode() if rows else b""

    def _plain(self, name: str, all_of_them: Sequence[Any]) -> Iterator[bytes]:
        sent = self._sent
        for begin in range(0, len(all_of_them), SESSIONS_PER_FRAME):
            new: list[Any] = []
            for one in all_of_them[begin : begin + SESSIONS_PER_FRAME]:
                if (name, one) not in sent:
                    sent[name, one] = None
                    new.append(one.hex() if isinstance(one, bytes) else one)
            yield json.dumps({name: new}).encode() if new else b""


def _as_json(facts: Facts) -> list[Any]:
    value, place, parent, continued, heirs, replaced_at = facts
    written_place = None
    if place is not None:
        earlier = [[owner.hex(), generation] for owner, generation in place.earlier]
        written_place = [place.lineage.hex(), place.generation, earlier]
    return [
        value.hex(),
        written_place,
        parent.hex(),
        continued,
        [one.hex() for one in heirs],
        replaced_at,
    ]


def know_sessions(services: Services, payload: bytes) -> None:
    """Learn the sessions that another process knows.

    Raises:
        ValueError: The payload does not have the expected form.
    """
    rules = services.owner_rules
    seen, octets = rules.seen, bytes.fromhex
    try:
        said = json.loads(payload)
        for name in said.get("names", ())[:NAMES_LEARNT_MAX]:
            seen.learn_name(octets(name))
        rules.lineages.names.update(map(octets, said.get("rolling", ())[:NAMES_LEARNT_MAX]))
        for one in said.get("shared", ())[:SHARED_MAX]:
            if len(octets(one)) == OWNER_BYTES:
                seen.shared[octets(one)] = None
        for one in said.get("begun", ()):
            seen.restore_issued(octets(one))
        for mark, table, since in said.get("known", ()):
            seen.known.know(int(mark), str(table), float(since))
        for value, place, parent, continued, heirs, replaced_at in said.get("values", ()):
            rules.lineages.restore(
                (
                    octets(value),
                    None if place is None else _place(*place),
                    octets(parent),
                    bool(continued),
                    tuple(map(octets, heirs)),
                    float(replaced_at),
                )
            )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("no sessions") from error


def _place(lineage: str, generation: int, earlier: list[list[Any]]) -> Place:
    octets = bytes.fromhex
    known = tuple([(octets(one), int(number)) for one, number in earlier])
    return Place(octets(lineage), int(generation), known)
