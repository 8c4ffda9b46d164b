"""The handover of a process's state to its successor (SIGUSR2).

The old process continues to serve while the new one starts. When the new process is ready, it asks
for the state:

1. The old process writes the stored responses and the known sessions into a file in memory (the
   snapshot), in slices. Changes during that time are appended: removals at once, in their place in
   the order, and newly stored responses at the end. Then the file is sealed.
2. From then on each change goes over the link between the two processes. The new process reads the
   file, then the link, and reports when it has read the file.
3. The old process sends the state of the circuit, the demand of each client, and the used tickets.
   The new process begins to accept connections.
4. Until the old process ends, each process sends its removals to the other, before the next
   response that would conflict with them, and its requests in flight. The old process also sends
   what it stores.

So a response that one process removes is not shown by the other for longer than a message takes.
If the state cannot be read, the new process begins without it.

state_giver.py is the end of the old process and state_taker.py that of the new one. This file has
what both do while both serve.
"""

import asyncio
import json
from typing import Final

from retter.continuity.shared import Shared
from retter.disk.journal import packed_removals, unpacked_removals
from retter.proxy.follower import Follower
from retter.proxy.holders import start_waiting
from retter.proxy.services import Services
from retter.proxy.state_link import Kind, StateLink
from retter.store.write_behind import Removals

# How long the other process may believe that something is still in flight here: a fifth of the
# breaker's tick. Each report takes 30 us of CPU in both processes together.
TELL_EVERY_S: Final = 0.01
SILENT_S: Final = 5.0  # a process without reports for this long hangs and is not counted


class HandoverEnd:
    """The common part of both ends while both processes serve.

    Attributes:
        link: To the other end.
        shared: The other process's requests in flight; None while only one process serves.
    """

    def __init__(self, services: Services, link: StateLink) -> None:
        self.services = services
        self.link = link
        self.shared: Shared | None = None
        self._loop = services.loop
        self._applies = False  # a change from the other end, which is not sent back
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        link.on_frame = self.on_frame
        link.on_end = self.on_end

    # -- following the store

    def follow(self) -> None:
        """Listen to changes of the store."""
        store = self.services.store
        follower = store.behind
        if not isinstance(follower, Follower):
            follower = Follower(follower)
            store.put_behind(follower)
        follower.listeners.append(self)

    def follow_no_more(self) -> None:
        """Stop listening to changes of the store."""
        store = self.services.store
        follower = store.behind
        if isinstance(follower, Follower) and self in follower.listeners:
            follower.listeners.remove(self)
            if not follower.listeners:
                store.put_behind(follower.inner)

    def changed(self, key: bytes) -> None:
        """The responses stored under a key have changed or been removed."""

    def removed(self, removals: Removals) -> None:
        """This process has removed stored responses."""
        if not self._applies:
            self.link.send(Kind.REMOVALS, packed_removals(removals))

    # -- frames from the other end

    def on_frame(self, kind: int, payload: bytes) -> None:
        """Process the frames that either end may send."""
        now = self._loop.time()
        if kind == Kind.REMOVALS:
            self._applies = True
            try:
                self.services.store.invalidation.take_back(unpacked_removals(payload), now)
            finally:
                self._applies = False
        elif kind == Kind.REPORT:
            if self.shared is not None:
                self.services.breaker.settle()
                self.shared.take(json.loads(payload), now)
                self._heard_at = now
                start_waiting(self.services, now)  # what ended there has left a place here
        else:
            raise ValueError(f"a frame of kind {kind}")

    def share(self, *, comes: bool) -> None:
        """Begin to report to the other end: from now on both processes serve."""
        self.shared = Shared(self.services.breaker.circuit, comes=comes)
        self._heard_at = self._loop.time()
        self._tell()

    def _tell(self) -> None:
        self._timer = self._loop.call_later(TELL_EVERY_S, self._tell)
        if self.shared is not None:
            if self._loop.time() - self._heard_at > SILENT_S:
                self.shared.forget()
            self.services.breaker.settle()
            self.link.send(Kind.REPORT, json.dumps(self.shared.report()).encode())

    def on_end(self, reason: str) -> None:
        """The other end is closed, or its frames cannot be read."""
        self.close()

    def close(self) -> None:
        """Close the link and continue without the other process."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.follow_no_more()
        if self.shared is not None:
            self.shared.end()
            self.shared = None
        self.link.close()
