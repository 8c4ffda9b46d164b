"""Logs each change of the situation, and each incident when it is over.

A change from one good situation to another is not written: visitors come and go all day.
"""

from typing import Any

from retter.admin import incidents
from retter.admin.incidents import Incident
from retter.admin.situation import TONES, Situation, length
from retter.admin.watch import Watch
from retter.telemetry.log import get_logger

# Between two lines, in seconds: a situation that flaps is logged six times a minute.
AGAIN_S = 10.0

_WORTH_A_LINE = TONES.index("note")

log = get_logger()


class SituationLog:
    """Called once a second with the time, after the watch."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._logged = watch.situation  # the last that was written, or was not worth it
        self._written_at = float("-inf")
        watch.on_incident_over.append(self.on_incident_over)

    def sentences(self, now: float) -> dict[str, Any]:
        """Return the sentences about the situation for the line of a change of the circuit."""
        situation = self._watch.look(now)
        self._logged = situation
        return {"situation": situation.row, "tone": situation.tone, "now": situation.now}

    def on_second(self, now: float) -> None:
        """Log the situation if it has changed."""
        situation, logged = self._watch.situation, self._logged
        if situation.row == logged.row:
            return
        if not _is_worth_a_line(situation) and not _is_worth_a_line(logged):
            self._logged = situation
            return
        worse = TONES.index(situation.tone) > TONES.index(logged.tone)
        if not worse and now - self._written_at < AGAIN_S:
            return
        self._logged, self._written_at = situation, now
        write = log.warning if situation.tone in ("note", "busy", "bad") else log.info
        write(
            "situation",
            row=situation.row,
            tone=situation.tone,
            now=situation.now,
            visitors=situation.visitors,
            retter=situation.retter,
            you=situation.you,
            also=list(situation.also),
        )

    def on_incident_over(self, incident: Incident) -> None:
        """Log an incident that is over."""
        document = incident.document()
        log.info("incident", words=words(document), **document)


def _is_worth_a_line(situation: Situation) -> bool:
    return TONES.index(situation.tone) >= _WORTH_A_LINE


def words(document: dict[str, Any]) -> str:
    """Return an incident that is over in a sentence."""
    return f"Over after {length(document['lasted_s'])}: {incidents.words(document)}"
