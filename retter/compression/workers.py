"""The interface to work off the event loop. The real thread is `pipeline.ThreadWorker`."""

from collections.abc import Callable
from typing import Protocol


class Workers(Protocol):
    """Workers off the event loop."""

    waiting: int  # jobs that are not done

    def submit(self, job: Callable[[], bytes], done: Callable[[bytes | None], None]) -> None:
        """Do a job; `done` is called on the loop with its result, or None if it has failed."""
        ...

    def close(self) -> None:
        """Discard all jobs that wait."""
        ...
