"""Stored bodies without their content coding, for clients that do not accept it.

Each body is decoded once: a small one at once, a larger one in the thread of the compressors, since
inflating 16 MiB takes 40 ms. The result is kept as a form of the stored response, within the
store's budget and its owner's share. A body that becomes too large (coding.py), or for which there
is no room, counts as not stored for these clients. It is not tried again while the encoded body is
stored.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from retter.compression.coding import (
    acceptable,
    decoded_bytes_max,
    decoded_form,
    is_encoded,
    plain_body,
    readable,
    shown_decoded,
)
from retter.compression.workers import Workers
from retter.http.message import RequestHead
from retter.store.policy import Identity
from retter.store.record import IDENTITY, StoredResponse
from retter.store.store import ResponseStore

# Limits for decoding at once: 64 KiB of text take 0.3 ms at worst; a job in the thread costs 0.1 ms
# in addition. Each frame of zstd costs 12 us, however small it is.
INLINE_BYTES_MAX: Final = 4 * 1024
INLINE_DECODED_BYTES_MAX: Final = 64 * 1024
INLINE_MEMBERS_MAX: Final = 16

# Jobs in the thread and waiting for it: 0.1 s of work with usual pages, 2 s with the largest.
JOBS_MAX: Final = 64

OnDone = Callable[[StoredResponse | None], None]


def decoded_at_once(body: bytes, content_encoding: bytes) -> bytes | None:
    """Return a body without its content coding, or None if that would take long."""
    if len(body) > INLINE_BYTES_MAX and is_encoded(content_encoding):
        return None
    return plain_body(body, content_encoding, INLINE_DECODED_BYTES_MAX, INLINE_MEMBERS_MAX)


class _Waiter(NamedTuple):
    """A client that waits for a body."""

    identity: Identity
    stored: StoredResponse
    on_done: OnDone


class Decoding:
    """Decoding for all exchanges of one process."""

    def __init__(self, store: ResponseStore, workers: Workers) -> None:
        self._store = store
        self.workers = workers
        self._waiters: dict[bytes, list[_Waiter]] = {}  # by the body that is being decoded

    def readable(self, stored: StoredResponse, request: RequestHead) -> bool:
        """Return, without decoding it, whether this client can be given the response."""
        if acceptable(stored, request):
            return True
        return readable(stored, request) and (
            self._store.forms.coded_body(stored.body, IDENTITY) != stored.body
        )

    def shown(
        self, identity: Identity, stored: StoredResponse, request: RequestHead
    ) -> StoredResponse | None:
        """Return the response in a form that this client can read.

        None: the form must be made first (`make`), or is not possible.
        """
        if acceptable(stored, request):
            return stored
        if (form := stored.form(IDENTITY)) is not None:
            return shown_decoded(stored, form)
        if not self.readable(stored, request):
            return None
        self._store.keep_borrowed(stored.body)  # so that its form is kept with it
        body = self._store.forms.coded_body(stored.body, IDENTITY)
        if body is None:
            body = decoded_at_once(stored.body, stored.content_coding)
            return None if body is None else self._kept(identity, stored, body)
        form = decoded_form(stored, body)
        self._store.forms.attach(identity, stored, IDENTITY, form)
        return shown_decoded(stored, form)

    @property
    def has_room(self) -> bool:
        """Whether one more job may wait."""
        return self.workers.waiting < JOBS_MAX

    def make(self, identity: Identity, stored: StoredResponse, on_done: OnDone) -> bool:
        """Decode a readable response in the thread, for all clients that wait for it.

        `on_done` is called on the loop with the decoded response, or with None if it cannot be
        decoded.

        Returns:
            False if too many jobs wait: then `on_done` is not called.
        """
        body = stored.body
        waiter = _Waiter(identity, stored, on_done)
        if body in self._waiters:
            self._waiters[body].append(waiter)
            return True
        if not self.has_room:
            return False
        self._waiters[body] = [waiter]
        coding = stored.content_coding
        bytes_max = min(decoded_bytes_max(body), self._store.forms.form_bytes_max(body))

        def job() -> bytes:
            plain = plain_body(body, coding, bytes_max)
            return body if plain is None else plain

        self.workers.submit(job, lambda plain: self._made(body, plain))
        return True

    def _made(self, body: bytes, plain: bytes | None) -> None:
        """Call the waiters. `plain` is the body itself if not decodable, None after a fault."""
        waiters = self._waiters.pop(body)
        if plain is body:
            self._store.forms.keep_coded(body, IDENTITY, body)
            plain = None
        fault: Exception | None = None
        for waiter in waiters:
            try:
                shown = None
                if plain is not None:
                    shown = self._kept(waiter.identity, waiter.stored, plain)
                waiter.on_done(shown)
            except Exception as error:  # noqa: BLE001 - raised when the others have been told
                fault = error
        if fault is not None:
            raise fault

    def _kept(
        self, identity: Identity, stored: StoredResponse, body: bytes
    ) -> StoredResponse | None:
        """Keep the decoded form and return the response in it; None if there is no room."""
        form = decoded_form(stored, body)
        if body and not self._store.forms.keep_decoded(identity, stored, form):
            return None
        return shown_decoded(stored, form)
