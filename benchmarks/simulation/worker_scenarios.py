"""Several workers: the telling scenarios side by side, and workers that are killed."""

from benchmarks.simulation import measure as m
from benchmarks.simulation.application import Model
from benchmarks.simulation.load import Kill, Load
from benchmarks.simulation.scenarios import AFTER_S, WARM_S, Bar, Scenario, least, most

# Those in which each part of the judgement is needed: a limit, a ceiling, a stall, probes, lanes.
TELLING = (
    "5x",
    "20x",
    "1.2x",
    "5x bimodal",
    "bounded backlog",
    "collapse",
    "hang 20 s",
    "refused 20 s",
    "restart, learnt kept",
    "pool, 1.5x",
    "pool, 4x",
    "crawl 4x, 20 addresses",
    "crawl 4x, 20,000 addresses",
)

_KILLED_AT = WARM_S + 10
_END = WARM_S + 30
_MODEL = Model()


def _killed(name: str, about: str, *kills: Kill, peak: float = 6) -> Scenario:
    bars: tuple[Bar, ...] = (
        least("goodput of the next 5 s, %", m.goodput(_KILLED_AT, _KILLED_AT + 5), 85),
        least("fresh goodput, % of capacity", m.goodput(WARM_S, _END), 85),
        most("GET errors", m.get_errors(0, _END + AFTER_S), 0),
        most("peak in flight, x workers", m.peak_in_flight(WARM_S, _END), peak),
        most("fresh again after, s", m.fresh_after(_END), 3),
        most("leaked", m.leaked, 0),
    )
    capacity = _MODEL.capacity
    return Scenario(
        name=name,
        about=about,
        model=_MODEL,
        load=Load(
            phases=(
                (WARM_S, 0.5 * capacity),
                (_END, 5 * capacity),
                (_END + AFTER_S, 0.5 * capacity),
            ),
            kills=kills,
        ),
        bars=bars,
    )


KILLED = (
    _killed(
        "leader killed",
        "inside 5x; its parent takes note, and it is back after 0.3 s",
        Kill(at=_KILLED_AT, worker=0, back_after_s=0.3),
    ),
    _killed(
        "leader killed, unnoticed",
        "inside 5x; it is silent for 3 s, then it is back",
        Kill(at=_KILLED_AT, worker=0, back_after_s=3.0, noticed=False),
        # The POSTs of three seconds have waited in its socket, and none of them is ever refused.
        peak=24,
    ),
    _killed(
        "follower killed",
        "inside 5x; back after 0.3 s",
        Kill(at=_KILLED_AT, worker=1, back_after_s=0.3),
    ),
    _killed(
        "both killed in turn",
        "inside 5x; each is back after 0.3 s",
        Kill(at=_KILLED_AT, worker=0, back_after_s=0.3),
        Kill(at=_KILLED_AT + 1, worker=1, back_after_s=0.3),
        Kill(at=_KILLED_AT + 2, worker=0, back_after_s=0.3),
        Kill(at=_KILLED_AT + 3, worker=1, back_after_s=0.3),
    ),
)
