"""The workers as the supervisor sees them: which one to start, reload or kill, and when. Pure.

A worker goes through phases:

    waiting --start--> starting --ready--> serving --drain--> draining --exit--> ended
       ^                  |                   |
       +-----exit---------+------exit---------+

`Fleet` says what to do (`Step`), and the supervisor does it.
"""

from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final

from retter.process.backoff import Backoff

# A worker without a heartbeat for this long hangs: no request, and no step of the event loop, takes
# that time.
SILENT_S: Final = 10.0

# Time for a worker to begin to serve: half a second, or much more on a machine that swaps.
START_S: Final = 60.0

# Time for a worker to apply new settings; after that, the next one is reloaded in any case.
RELOAD_S: Final = 10.0

# Clients whose connections came to a worker that does not serve wait for its next process. If that
# takes longer than this, the worker's sockets stop listening, and the kernel gives all new clients
# to the other workers. A start takes half a second.
QUEUE_S: Final = 1.0

# If no worker has ever served, this many deaths of one of them end RETTER.
DEATHS_AT_START_MAX: Final = 5

# A worker that drains ends by itself after `drain_s`. This is added for closing its files.
DRAIN_MARGIN_S: Final = 5.0


class WorkerPhase(Enum):
    """The phase of a worker's life."""

    WAITING = "waiting"  # to be started
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    ENDED = "ended"


class Do(Enum):
    """An action of the supervisor."""

    START = "start"
    CLOSE_STORE = "close the store"
    OPEN_STORE = "open the store"
    RELOAD = "reload"
    DRAIN = "drain"
    STOP_LISTENING = "stop listening"
    KILL = "kill"
    GIVE_UP = "give up"  # end all


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, to one worker.

    Attributes:
        why: For the log; "" if there is nothing to say.
    """

    do: Do
    index: int
    why: str = ""


@dataclass(slots=True)
class _Worker:
    phase: WorkerPhase = WorkerPhase.WAITING
    since: float = 0.0  # when the phase began
    start_at: float = -inf
    reload_asked: bool = False
    closing: bool = False  # it got CLOSE_STORE, and has not answered
    told_at: float = inf  # when it got RELOAD
    deaths: int = 0  # before it ever served
    killed: bool = False
    listens: bool = True  # its sockets queue clients
    end_by: float = inf  # when it is killed if it drains alone
    backoff: Backoff = field(default_factory=Backoff)


class Fleet:
    """The phases of all workers.

    Attributes:
        stopping: Whether all of them are to end.
        has_served: Whether all of them have served at the same time.
        reloading: Whether some may still have the previous settings.
    """

    def __init__(self, workers: int) -> None:
        self._workers = [_Worker() for _ in range(workers)]
        self.stopping = False
        self.has_served = False
        self._end_by = inf
        self._awake_since = -inf  # when the supervisor ran again after a pause
        self._reload_begun_at = -inf
        self.reloading = False

    def phase(self, index: int) -> WorkerPhase:
        """Return the phase of a worker."""
        return self._workers[index].phase

    @property
    def ended(self) -> bool:
        """Whether no worker runs any more, and none will be started."""
        return self.stopping and all(one.phase is WorkerPhase.ENDED for one in self._workers)

    @property
    def serving(self) -> int:
        """The number of workers that serve."""
        return sum([one.phase is WorkerPhase.SERVING for one in self._workers])

    # -- what has happened

    def started(self, index: int, now: float) -> None:
        """A process was started for a worker. When it serves, its sockets listen again."""
        self._enter(index, WorkerPhase.STARTING, now)
        self._workers[index].listens = True

    def listens_no_more(self, index: int) -> None:
        """The sockets of a worker have stopped listening."""
        self._workers[index].listens = False

    def ready(self, index: int, now: float) -> None:
        """A worker has begun to serve."""
        if self._workers[index].phase is WorkerPhase.STARTING:
            self._enter(index, WorkerPhase.SERVING, now)
            self._workers[index].deaths = 0
            if self.serving == len(self._workers):
                self.has_served = True

    def reloaded(self, index: int) -> None:
        """A worker has applied new settings, or has refused them.

        If it was told before the latest reload, it may have read older settings.
        """
        worker = self._workers[index]
        if self._reload_begun_at <= worker.told_at < inf:
            worker.reload_asked = False
        worker.told_at = inf

    def closed(self, index: int) -> None:
        """A worker writes nothing new to the shared store."""
        self._workers[index].closing = False

    def drains(self, index: int, now: float, drain_s: float) -> None:
        """A worker drains, because somebody has sent it a signal."""
        worker = self._workers[index]
        if worker.phase in (WorkerPhase.STARTING, WorkerPhase.SERVING):
            self._enter(index, WorkerPhase.DRAINING, now)
            worker.end_by = now + drain_s + DRAIN_MARGIN_S

    def exited(self, index: int, now: float) -> float:
        """The process of a worker has ended; return when another one is to be started."""
        worker = self._workers[index]
        lived_s = now - worker.since if worker.phase is not WorkerPhase.STARTING else 0.0
        worker.deaths += worker.phase is WorkerPhase.STARTING
        asked = worker.phase is WorkerPhase.DRAINING
        worker.reload_asked, worker.told_at = False, inf  # the next process reads the new settings
        self.closed(index)
        if self.stopping:
            self._enter(index, WorkerPhase.ENDED, now)
            return inf
        self._enter(index, WorkerPhase.WAITING, now)
        worker.start_at = now + (0.0 if asked else worker.backoff.delay_s(lived_s))
        return worker.start_at

    def woke(self, now: float, paused_s: float) -> None:
        """The supervisor did not run for this time, and so perhaps no worker did.

        Their time limits begin again. Otherwise all of them would be killed for their silence.
        """
        self._awake_since = now
        self._end_by += paused_s
        for worker in self._workers:
            worker.end_by += paused_s

    def _enter(self, index: int, phase: WorkerPhase, now: float) -> None:
        worker = self._workers[index]
        worker.phase, worker.since, worker.killed, worker.end_by = phase, now, False, inf

    # -- orders

    def reload(self, now: float) -> list[Step]:
        """Have all workers read their settings again, one after the other.

        Meanwhile they have different settings: a page that one may store for everyone may be
        private by the rules of another. So none writes to the shared store until all are reloaded.
        """
        self.reloading, self._reload_begun_at = True, now
        steps: list[Step] = []
        for index, worker in enumerate(self._workers):
            worker.reload_asked = worker.phase in (WorkerPhase.STARTING, WorkerPhase.SERVING)
            worker.closing = worker.reload_asked
            if worker.closing:
                steps.append(Step(Do.CLOSE_STORE, index))
        return steps

    def stop(self, now: float, drain_s: float) -> list[Step]:
        """End all workers; those that run may drain."""
        self.stopping = True
        self._end_by = now + drain_s + DRAIN_MARGIN_S
        steps: list[Step] = []
        for index, worker in enumerate(self._workers):
            if worker.phase is WorkerPhase.WAITING:
                self._enter(index, WorkerPhase.ENDED, now)
            elif worker.phase in (WorkerPhase.STARTING, WorkerPhase.SERVING):
                self._enter(index, WorkerPhase.DRAINING, now)
                steps.append(Step(Do.DRAIN, index))
        return steps

    # -- the clock

    def tick(self, now: float, beats: list[float]) -> list[Step]:
        """Return the steps that are due now.

        Args:
            beats: When each worker was last alive.
        """
        steps: list[Step] = []
        for index, worker in enumerate(self._workers):
            if self._gives_up(worker):
                return [Step(Do.GIVE_UP, index, f"it ended {worker.deaths} times while it started")]
            why = self._why_kill(worker, now, beats[index])
            if why and not worker.killed:
                worker.killed = True
                steps.append(Step(Do.KILL, index, why))
            elif worker.phase is WorkerPhase.WAITING and now >= worker.start_at:
                steps.append(Step(Do.START, index))
            elif worker.listens and self.serving and self._keeps_waiting(worker, now):
                steps.append(Step(Do.STOP_LISTENING, index))
        return steps + self._next_reload(now)

    def _gives_up(self, worker: _Worker) -> bool:
        ended = worker.deaths >= DEATHS_AT_START_MAX
        return ended and not self.has_served and not self.stopping

    def _why_kill(self, worker: _Worker, now: float, beat: float) -> str:
        since = max(worker.since, self._awake_since)
        if worker.phase is WorkerPhase.STARTING and now - since >= START_S:
            return f"it did not serve within {START_S:g} s"
        if worker.phase is WorkerPhase.SERVING and now - max(beat, since) >= SILENT_S:
            return f"it has been silent for {SILENT_S:g} s"
        if worker.phase is WorkerPhase.DRAINING and now >= min(worker.end_by, self._end_by):
            return "it did not end in time"
        return ""

    def _keeps_waiting(self, worker: _Worker, now: float) -> bool:
        """Return whether clients of this worker would wait for too long."""
        if self.stopping:
            return False  # nobody listens any more
        if worker.phase is WorkerPhase.WAITING:
            return worker.start_at - worker.since >= QUEUE_S
        if worker.phase is WorkerPhase.STARTING:
            return now - worker.since >= SILENT_S
        return worker.phase is WorkerPhase.DRAINING and now - worker.since >= QUEUE_S

    def _next_reload(self, now: float) -> list[Step]:
        if not self.reloading:
            return []
        if now < self._reload_begun_at + RELOAD_S and any(one.closing for one in self._workers):
            return []
        if any(worker.told_at + RELOAD_S > now for worker in self._workers if worker.told_at < inf):
            return []
        for index, worker in enumerate(self._workers):
            if worker.told_at < inf:
                self.reloaded(index)  # it takes too long; the next one may go on
            elif worker.reload_asked and worker.phase is WorkerPhase.SERVING:
                worker.told_at = now
                return [Step(Do.RELOAD, index)]
        if any(worker.reload_asked for worker in self._workers):
            return []  # one that starts
        self.reloading = False
        return [Step(Do.OPEN_STORE, index) for index in range(len(self._workers))]
