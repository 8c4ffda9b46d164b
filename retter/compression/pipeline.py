"""The compression of responses: which ones, when, and in which thread.

A small whole body is compressed at once. A longer one is compressed as it arrives, its larger
pieces in a thread; nothing that the application has written is delayed by more than a tick. Stored
bodies are compressed once, in the same thread; meanwhile clients get them uncompressed. When the
loop lags, or the thread is busy, a response is forwarded uncompressed: a larger page is better than
a late one.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Final, Protocol, cast

from retter.base.buffers import add_piece
from retter.compression.compressors import Compressor, Encoder, compressor
from retter.compression.workers import Workers
from retter.http.chunked import chunk, last_chunk
from retter.http.content_coding import (
    Accepted,
    Negotiator,
    WeakenedTags,
    coded_head,
    kept_when_coded,
)
from retter.http.memo import HeadNotes
from retter.http.message import RequestHead, ResponseHead
from retter.store.policy import Identity
from retter.store.record import BODY, CODING, FORMS, Form, Record, StoredResponse, as_stored
from retter.store.store import ResponseStore

Trailers = list[tuple[bytes, bytes]]

# A tick that is this late, in seconds, means that the loop is overloaded. 64 busy connections alone
# delay it by 4 ms.
LAG_S_MAX: Final = 0.02

# Memory for the encoders of all forwarded bodies: 240 of ISA-L, 115 of zlib, 37 of zstd.
ENCODERS_BYTES_MAX: Final = 32 * 1024 * 1024

# Jobs in the thread and waiting for it. A piece takes a millisecond or two, a stored body of 1 MiB
# with brotli 25. So the last job waits for tens of milliseconds, not for seconds.
JOBS_MAX: Final = 16

# Pieces of at least this size are flushed to the client at once (that costs less than 1 % of the
# size), and so is a piece after a pause of so many seconds. Smaller and faster ones are collected
# until the next tick, because a page that is written word by word would not shrink at all.
FLUSH_BYTES: Final = 4096
FLUSH_PAUSE_S: Final = 0.005


class ThreadWorker:
    """One thread, started with the first job. The compressors release the interpreter's lock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._executor: Executor | None = None
        self._closed = False
        self.waiting = 0

    def submit(self, job: Callable[[], bytes], done: Callable[[bytes | None], None]) -> None:
        """Do a job; `done` is called on the loop with its result, or None if it has failed."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor  # loads its module only now

            # One thread: jobs share compressors without a lock, and a core stays free.
            self._executor = ThreadPoolExecutor(1, "compress")
        try:
            future = self._executor.submit(job)
        except RuntimeError:  # no memory for a thread
            self._loop.call_soon(done, None)
            return
        self.waiting += 1
        future.add_done_callback(lambda future: self._hand_over(future, done))

    def _hand_over(self, future: Future[bytes], done: Callable[[bytes | None], None]) -> None:
        if not self._closed:
            self._loop.call_soon_threadsafe(self._done, future, done)

    def _done(self, future: Future[bytes], done: Callable[[bytes | None], None]) -> None:
        self.waiting -= 1
        if self._closed:
            return
        error = future.exception()
        done(None if error is not None else future.result())
        if error is not None:
            raise error  # the loop's exception handler logs it

    def close(self) -> None:
        """Discard all jobs that wait."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


class EncodedSink(Protocol):
    """The part of an exchange that a BodyEncoder uses."""

    def encoding(self) -> None:
        """A piece is being compressed: send no more until `encoded` is called."""
        ...

    def encoded(self, data: bytes, complete: bool) -> None:
        """Take framed octets for the client. More pieces may come, unless `complete`."""
        ...

    def encoding_failed(self) -> None:
        """The rest of the body cannot be compressed."""
        ...


class BodyEncoder:
    """A forwarded body that is compressed and sent as chunks."""

    __slots__ = (
        "_compression",
        "_compressor",
        "_encoder",
        "_last_at",
        "_pending",
        "_sink",
        "_trailers",
        "_unflushed",
        "busy",
    )

    def __init__(self, compression: "Compression", how: Compressor, sink: EncodedSink) -> None:
        self._compression = compression
        self._compressor = how
        self._encoder: Encoder | None = how.encoder()
        self._sink: EncodedSink | None = sink
        self._pending: list[bytes] = []  # pieces that arrived while another one was compressed
        self._trailers: Trailers | None = None  # known with the last piece
        self._last_at = -1.0
        self._unflushed = 0  # octets since the last flush
        self.busy = False  # a piece is being compressed in the thread

    def feed(self, data: bytes, complete: bool, trailers: Trailers) -> bytes:
        """Take a piece and return framed octets for the client. The rest comes by `encoded`."""
        if complete:
            self._trailers = kept_when_coded(trailers)
        if self.busy:
            add_piece(self._pending, data)
            return b""
        return self._take(data)

    def _take(self, data: bytes) -> bytes:
        encoder = self._encoder
        assert encoder is not None, "the body has ended"
        last = self._trailers is not None
        compression = self._compression
        now = compression.time()
        paused = now - self._last_at >= FLUSH_PAUSE_S
        if data:
            self._last_at = now
        self._unflushed += len(data)
        flush = not last and bool(data) and (paused or self._unflushed >= FLUSH_BYTES)
        if flush or last:
            self._unflushed = 0
            compression.unflushed.pop(self, None)
        elif self._unflushed:
            compression.unflushed[self] = None
        if len(data) > self._compressor.inline_bytes_max:
            self.busy = True
            compression.unflushed.pop(self, None)
            assert self._sink is not None
            self._sink.encoding()
            compression.workers.submit(lambda: _step(encoder, data, flush, last), self._done)
            return b""
        return self._framed(_step(encoder, data, flush, last))

    def _framed(self, coded: bytes) -> bytes:
        if self._trailers is None:
            return chunk(coded)
        self._release()
        return chunk(coded) + last_chunk(self._trailers)

    def _done(self, coded: bytes | None) -> None:
        self.busy = False
        sink = self._sink
        if sink is None:
            self._release()
        elif coded is None:
            self.cancel()
            sink.encoding_failed()
        else:
            self._go_on(sink, coded)

    def _go_on(self, sink: EncodedSink, coded: bytes) -> None:
        # The last piece may have arrived since: then the end of the body is pending.
        pending, self._pending = self._pending, []
        if not pending:
            sink.encoded(self._framed(coded), self._trailers is not None)
            return
        written = chunk(coded) + self._take(b"".join(pending))
        sink.encoded(written, self._trailers is not None and not self.busy)

    def flush(self) -> None:
        """Send everything so far to the client. Called with each tick until it is sent."""
        self._compression.unflushed.pop(self, None)
        if self._encoder is not None and self._sink is not None and not self.busy:
            self._unflushed = 0
            self._sink.encoded(chunk(self._encoder.flush()), False)

    def cancel(self) -> None:
        """Discard the rest: nobody waits for it."""
        self._sink = None
        if not self.busy:  # otherwise when the piece in the thread is done
            self._release()

    def _release(self) -> None:
        if self._encoder is not None:
            self._encoder = None
            self._compression.encoder_released(self._compressor)
            self._compression.unflushed.pop(self, None)


def _step(encoder: Encoder, data: bytes, flush: bool, last: bool) -> bytes:
    coded = encoder.compress(data) if data else b""
    if last:
        return coded + encoder.finish()
    return coded + encoder.flush() if flush else coded


class Negotiated(Protocol):
    """A request with the codings that its client accepts, computed when first needed."""

    head: RequestHead
    identity: Identity
    accepted: Accepted | None


class Compression:
    """Compression for all exchanges of one process.

    Args:
        time: The loop's clock, monotonic seconds.
    """

    def __init__(self, store: ResponseStore, workers: Workers, time: Callable[[], float]) -> None:
        self.configure(Negotiator(()), 1, 0)
        self._store = store
        self.workers = workers
        self.time = time
        self._coded_heads: HeadNotes[ResponseHead, bytes] = HeadNotes()  # `forward`, coded
        self._good: dict[bytes, Compressor] = {}  # for the thread
        self._making: set[tuple[bytes, bytes]] = set()  # coding and body
        self._encoders_bytes = 0
        self._lagging = False
        self.unflushed: dict[BodyEncoder, None] = {}
        self.weakened = WeakenedTags()
        self.forwarded = 0  # responses compressed while they were forwarded
        self.refrained = 0  # forwarded uncompressed, because the loop or the thread was busy
        self.made = 0  # stored bodies compressed

    def configure(self, negotiator: Negotiator, gzip_level: int, bytes_min: int) -> None:
        """Use new settings. Bodies that have begun are not changed.

        Args:
            gzip_level: 1 to 9, for forwarded bodies.
            bytes_min: Smaller bodies are not compressed.
        """
        self._negotiator = negotiator
        self._gzip_level = gzip_level
        self._bytes_min = bytes_min
        self._fast: dict[bytes, Compressor] = {}  # used on the loop

    def accepted(self, request: Negotiated) -> Accepted:
        """Return the codings for this client."""
        accepted = request.accepted
        if accepted is None:
            accepted = request.accepted = self._negotiator.accepted(request.head)
        return accepted

    def _compressor(self, coding: bytes) -> Compressor:
        fast = self._fast.get(coding)
        if fast is None:
            fast = self._fast[coding] = compressor(coding, self._gzip_level)
        return fast

    def _coded_head(self, head: ResponseHead) -> bytes:
        coded = self._coded_heads.known.get(head)
        if coded is None:
            made = coded_head(head.forward)
            coded = self._coded_heads.note(head, made.head)
            if made.strong_etag:
                self.weakened.add(made.strong_etag)
        return coded

    # -- forwarded answers

    def whole(
        self, request: Negotiated, head: ResponseHead, body: bytes, stored: bytes | None = None
    ) -> tuple[bytes, bytes] | None:
        """Compress a compressible response that has arrived whole.

        Args:
            request: What the client accepts.
            head: The head of the response.
            body: Its body.
            stored: An equal body that is in the store. What is made of it is kept there, so the
                next equal response is not compressed again: that takes 6 us of 1 KiB, 45 us of
                16 KiB.

        Returns:
            Its head, without the empty line, and its body; None if it is too large for this.
        """
        coding = (request.accepted or self.accepted(request)).forwarded
        if not coding or len(body) < self._bytes_min:
            return head.forward, body
        coded = None if stored is None else self._store.forms.coded_body(stored, coding)
        if coded is None:
            if self._lagging:
                self.refrained += 1
                return head.forward, body
            how = self._compressor(coding)
            if len(body) > how.inline_bytes_max:
                return None
            coded = how.whole(body)
            # A larger one is compressed better in the thread when it is needed from the store.
            if stored is not None and 2 * len(body) <= how.inline_bytes_max:
                self._made(stored, coding, coded)
        if len(coded) >= len(body):
            return head.forward, body
        self.forwarded += 1
        return b"%bContent-Encoding: %b\r\nContent-Length: %d\r\n" % (
            self._coded_head(head),
            coding,
            len(coded),
        ), coded

    def stream(
        self, request: Negotiated, head: ResponseHead, sink: EncodedSink
    ) -> tuple[bytes, BodyEncoder] | None:
        """Begin to compress a compressible response of any size.

        Returns:
            Its head, without the empty line, and the encoder; None if it stays uncompressed.
        """
        coding = (request.accepted or self.accepted(request)).forwarded
        if not coding:
            return None
        how = self._compressor(coding)
        if (
            self._lagging
            or self.workers.waiting >= JOBS_MAX
            or self._encoders_bytes + how.encoder_bytes > ENCODERS_BYTES_MAX
        ):
            self.refrained += 1
            return None
        self._encoders_bytes += how.encoder_bytes
        self.forwarded += 1
        return b"%bContent-Encoding: %b\r\nTransfer-Encoding: chunked\r\n" % (
            self._coded_head(head),
            coding,
        ), BodyEncoder(self, how, sink)

    def encoder_released(self, how: Compressor) -> None:
        """Count an encoder that is not needed any more."""
        self._encoders_bytes -= how.encoder_bytes

    # -- stored answers

    def form(self, request: Negotiated, entry: Record) -> Form | None:
        """Return the form of a compressible entry for this client; None: uncompressed for now."""
        codings = (request.accepted or self.accepted(request)).stored
        if not codings or entry[CODING]:
            return None
        for made_in, form in entry[FORMS] or ():
            if made_in == codings[0]:
                return cast("Form", form)
        self._store.keep_borrowed(entry[BODY])  # so that its form is kept with it
        return self._form_of(request, as_stored(entry), codings)

    def _form_of(
        self, request: Negotiated, stored: StoredResponse, codings: tuple[bytes, ...]
    ) -> Form | None:
        """Have the best form made, and return the form to use meanwhile."""
        body, wanted = stored.body, codings[0]
        if self._store.forms.coded_body(body, wanted) is None and not self._make_at_once(
            body, wanted
        ):
            self._make_in_thread(body, wanted)
        form = self._form_at_hand(request, stored, codings)
        if form is None and b"gzip" in codings and self._make_at_once(body, b"gzip"):
            form = self._form_at_hand(request, stored, codings)
        return form

    def _form_at_hand(
        self, request: Negotiated, stored: StoredResponse, codings: tuple[bytes, ...]
    ) -> Form | None:
        for coding in codings:
            if (form := stored.form(coding)) is not None:
                return form
            if (coded := self._store.forms.coded_body(stored.body, coding)) is not None:
                form = self._make_form(stored, coding, coded)
                self._store.forms.attach(request.identity, stored, coding, form)
                return form
        return None

    def _make_form(self, stored: StoredResponse, coding: bytes, coded: bytes) -> Form:
        if coded is stored.body:
            return Form(stored.head, stored.body)  # compressing gains nothing
        made = coded_head(stored.head)
        if made.strong_etag:
            self.weakened.add(made.strong_etag)
        return Form(b"%bContent-Encoding: %b\r\n" % (made.head, coding), coded)

    def _make_at_once(self, body: bytes, coding: bytes) -> bool:
        """Compress a stored body at once, if it is small enough."""
        if len(body) < self._bytes_min:
            self._store.forms.keep_coded(body, coding, body)
            return True
        if coding != b"gzip" or self._lagging:
            return False
        how = self._compressor(coding)
        if len(body) > how.inline_bytes_max // 2:
            return False
        self._made(body, coding, how.whole(body))
        return True

    def _make_in_thread(self, body: bytes, coding: bytes) -> None:
        job = (coding, body)
        if job in self._making or self.workers.waiting >= JOBS_MAX:
            return  # uncompressed for now; the next request tries again
        self._making.add(job)
        good = self._good.get(coding)
        if good is None:
            good = self._good[coding] = compressor(coding)
        whole = good.whole

        def done(coded: bytes | None) -> None:
            self._making.discard(job)
            if coded is not None:
                self._made(body, coding, coded)

        self.workers.submit(lambda: whole(body), done)

    def _made(self, body: bytes, coding: bytes, coded: bytes) -> None:
        self.made += 1
        self._store.forms.keep_coded(body, coding, coded if len(coded) < len(body) else body)

    # -- on the clock

    def note_lag(self, late_s: float) -> None:
        """Note the delay of the last tick, in seconds."""
        self._lagging = late_s > LAG_S_MAX

    def flush(self) -> None:
        """Send to clients what their encoders have collected."""
        for encoder in list(self.unflushed):
            encoder.flush()

    def close(self) -> None:
        """Stop compressing."""
        self.workers.close()

    def stats(self) -> dict[str, int]:
        """Return the figures."""
        return {
            "forwarded": self.forwarded,
            "refrained": self.refrained,
            "stored_forms": self.made,
            "encoder_bytes": self._encoders_bytes,
            "jobs": self.workers.waiting,
        }
