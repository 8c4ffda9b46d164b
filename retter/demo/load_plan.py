"""The plan of a load: which requests are sent, and when."""

from dataclasses import dataclass
from typing import Final

REQUESTS_MAX: Final = 1_000_000  # some 200 bytes each are kept until the end
RATE_MAX: Final = 20_000.0  # beyond what one Python process can send


class LoadError(Exception):
    """The plan cannot be carried out; the text says why."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A number of seconds with a constant rate of requests."""

    seconds: float
    rate: float


@dataclass(frozen=True, slots=True)
class Burst:
    """A number of requests at one moment, in addition to those of the phases."""

    at_s: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """The plan of a load. Raises ValueError if it exceeds the limits."""

    url: str  # http://HOST:PORT
    phases: tuple[Phase, ...] = (Phase(10.0, 2000.0),)
    bursts: tuple[Burst, ...] = ()
    targets: tuple[str, ...] = tuple(f"/product/{n}" for n in range(1, 501))
    new_pages: bool = False  # each GET has a different query
    warm: tuple[str, ...] | None = None  # fetched once beforehand; None: all targets
    warm_parallel: int = 4
    settle_s: float = 0.5  # between warming and load
    post_share: float = 0.1
    post_target: str = "/cart/add"
    post_body: str = "product=7"
    timeout_s: float = 2.0  # after this, the client leaves
    connections_max: int = 8000  # at once; one request each
    poisson: bool = True  # random gaps; False: even ones
    seed: int = 1
    any_host: bool = False  # False: loopback addresses only

    def __post_init__(self) -> None:
        requests = sum(phase.seconds * phase.rate for phase in self.phases)
        requests += sum(burst.count for burst in self.bursts)
        if not 0 < requests <= REQUESTS_MAX:
            raise ValueError(f"{requests:.0f} requests; from 1 to {REQUESTS_MAX} are possible")
        if not all(0 <= phase.rate <= RATE_MAX and phase.seconds >= 0 for phase in self.phases):
            raise ValueError(f"rates are from 0 to {RATE_MAX:.0f} a second")
        if not 0 <= self.post_share <= 1:
            raise ValueError("the share of POSTs is from 0 to 1")
        if not all(0 <= b.at_s <= self.seconds and b.count > 0 for b in self.bursts):
            raise ValueError("a burst is at least one request, within the phases")
        if not self.targets:
            raise ValueError("at least one path is needed")
        if not 0 < self.timeout_s <= 120 or not 1 <= self.connections_max <= 60_000:
            raise ValueError("the timeout is up to 120 s, the connections are 1 to 60000")

    @property
    def seconds(self) -> float:
        """The duration of the load, without the wait for the last responses."""
        return sum(phase.seconds for phase in self.phases)
