"""Keeps beside the store what was learnt of the application and its sessions.

The knowledge of the application is used again if it is younger than an hour: the application may
have been changed since.
The names of session cookies, the values of them that many people share, and which sessions the
application has begun hold as long as the store does: without the names nobody's own pages would be
found again, and without the sessions their visitors would be strangers (turns.py). So do the
lineages of sessions whose cookie changes with each answer (lineage.py), as hashes. What crawlers
ask for is kept, and what addresses do is not.
"""

import base64
import contextlib
import json
from math import inf, isinf
from typing import TYPE_CHECKING, Any, Final

from retter.breaker import CircuitBreaker
from retter.config.settings import Settings
from retter.continuity.learnt import crawlers, learnt, relearn, remember_crawlers
from retter.store.lineage import Facts, Place
from retter.store.owner import OWNER_BYTES, OwnerRules
from retter.store.sessions import NAMES_LEARNT_MAX, SHARED_MAX

if TYPE_CHECKING:
    from retter.disk.shelf import DiskShelf

FILE: Final = "learnt"
BYTES_MAX: Final = 1024 * 1024  # RETTER did not write a larger file

SAVE_EVERY_S: Final = 10.0
AGE_MAX_S: Final = 3600.0

# Values of changing cookies that are written down, of those used last: two of each visitor, 300
# octets each. They change with each answer, so they are written more rarely, and at the end.
LINEAGES: Final = "lineages"  # the file
LINEAGES_MAX: Final = 1024
LINEAGES_EVERY_S: Final = 60.0

# Sessions that are written down, of those used last: 40 KB, if one of them is new.
SESSIONS_MAX: Final = 2048


class LearntKeeper:
    """Writes what was learnt every ten seconds, and at the end."""

    def __init__(
        self, disk: "DiskShelf", breaker: CircuitBreaker, rules: OwnerRules, settings: Settings
    ) -> None:
        self._disk = disk
        self._breaker = breaker
        self._rules = rules
        self._upstream = settings.upstream
        self._due_at = 0.0
        self._lineages_due_at = 0.0
        self._written: dict[str, bytes] = {}

    def tick(self, now: float) -> None:
        """Write when ten seconds have passed."""
        if now >= self._due_at:
            self._due_at = now + SAVE_EVERY_S
            self._write(FILE, self._said(now))
        if now >= self._lineages_due_at:
            self._lineages_due_at = now + LINEAGES_EVERY_S
            if len(self._rules.lineages):
                self._write(LINEAGES, self._lineages(now))

    def _write(self, name: str, data: bytes) -> None:
        if data != self._written.get(name):
            self._written[name] = data
            self._disk.write_soon(name, _dated(data, self._disk.wall()))

    def save(self, now: float) -> None:
        """Write the files now, and wait until it is done."""
        wall = self._disk.wall()
        self._disk.write_now(FILE, _dated(self._said(now), wall))
        if len(self._rules.lineages):
            self._disk.write_now(LINEAGES, _dated(self._lineages(now), wall))

    def _lineages(self, now: float) -> bytes:
        lineages = self._rules.lineages
        values = lineages.all_values()[-LINEAGES_MAX:]
        facts = [one for value in values if (one := lineages.facts_of(value)) is not None]
        said = {
            "names": [_text(name) for name in sorted(lineages.names)],
            "values": [_as_json(one, now) for one in facts],
        }
        return json.dumps(said).encode()

    def _restore_lineages(self, now: float) -> None:
        lineages = self._rules.lineages
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            said = json.loads(self._disk.read_file(LINEAGES, BYTES_MAX))
            facts = [_as_facts(row, now) for row in said["values"][:LINEAGES_MAX]]
            lineages.names.update(map(_octets, said["names"][:NAMES_LEARNT_MAX]))
            for one in facts:
                lineages.restore(one)

    def _said(self, now: float) -> bytes:
        seen = self._rules.seen
        said: dict[str, Any] = {
            "upstream": self._upstream,
            "application": learnt(self._breaker.circuit),
            "crawlers": crawlers(self._breaker.circuit, now),
            "names": [_text(name) for name in sorted(seen.names)],
            "shared": [_text(one) for one in seen.shared],
            "sessions": seen.known.issued(SESSIONS_MAX),
        }
        return json.dumps(said).encode()

    def restore(self, now: float) -> bool:
        """Restore the files of the previous process; return whether they were young enough."""
        self._restore_lineages(now)
        try:
            said = json.loads(self._disk.read_file(FILE, BYTES_MAX))
            for name in said["names"][:NAMES_LEARNT_MAX]:
                self._rules.seen.learn_name(_octets(name))
            for one in said["shared"][:SHARED_MAX]:
                self._rules.seen.shared[_owner(one)] = None
            for mark in said["sessions"][:SESSIONS_MAX]:
                self._rules.seen.known.restore(int(mark))
            age_s = max(0.0, self._disk.wall() - float(said["at"]))
            if age_s > AGE_MAX_S or said["upstream"] != self._upstream:
                return False
            remember_crawlers(self._breaker.circuit, said.get("crawlers", []), age_s, now)
            if self._breaker.circuit.limit.windows:
                return True  # other workers have told what is the case now
            return relearn(self._breaker.circuit, said["application"], age_s, now)
        except (ValueError, KeyError, TypeError, AttributeError):
            return False  # there is none, or it is none


def _as_json(facts: Facts, now: float) -> list[Any]:
    """Return the facts about a value, and the time since it was replaced."""
    value, place, parent, continued, heirs, replaced_at = facts
    place_row = None
    if place is not None:
        earlier = [[_text(lineage), until] for lineage, until in place.earlier]
        place_row = [_text(place.lineage), place.generation, earlier]
    ago_s = None if isinf(replaced_at) else round(now - replaced_at, 1)
    return [_text(value), place_row, _text(parent), continued, [_text(one) for one in heirs], ago_s]


def _as_facts(row: Any, now: float) -> Facts:
    value, place_row, parent, _, heirs, ago_s = row
    place = None
    if place_row is not None:
        lineage, generation, earlier = place_row
        known = tuple([(_owner(one), int(until)) for one, until in earlier])
        place = Place(_owner(lineage), int(generation), known)
    replaced_at = inf if ago_s is None else now - max(0.0, float(ago_s))
    # After a kill the file is older than what was stored last: an heir may have gone on since, and
    # nobody else may read what it has stored. So each heir branches off from here.
    return (
        _octets(value), place, _octets(parent), True,
        tuple([_octets(one) for one in heirs]), replaced_at,
    )  # fmt: skip


def _dated(data: bytes, wall: float) -> bytes:
    return b'{"at": %.1f, %b' % (wall, data[1:])


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


def _octets(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _owner(text: str) -> bytes:
    owner = _octets(text)
    if len(owner) != OWNER_BYTES:
        raise ValueError
    return owner
