"""Work off the event loop, as who has some sees it; the real thread is encoder.ThreadWorker."""

from collections.abc import Callable
from typing import Protocol


class Workers(Protocol):
    """Workers off the event loop."""

    waiting: int  # jobs that are not done

    def submit(self, job: Callable[[], bytes], done: Callable[[bytes | None], None]) -> None:
        """Do a job; `done` is called on the loop with its result, or None if it has failed."""
        ...

    def close(self) -> None:
        """Do nothing more of what waits."""
        ...
