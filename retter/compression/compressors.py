"""The compressors, each behind the same small interface, and imported when first needed.

gzip is always available: from ISA-L if the package `isal` is installed, else from the standard
library. br and zstd need Brotli and zstandard (Python 3.14 contains zstd). pipeline.py decides what
is compressed, and when.
"""

import sys
import zlib
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from typing import Any, Final, NamedTuple

# Levels for stored bodies, which are compressed once. Each further level takes twice the time and
# saves a percent or two.
_STORED_GZIP_LEVEL: Final = 6
_STORED_BROTLI_QUALITY: Final = 6
_STORED_ZSTD_LEVEL: Final = 9
# Levels for forwarded bodies. The levels 1 to 3 of zstd take the same time; the lowest of brotli
# takes twice as long as gzip.
_FAST_BROTLI_QUALITY: Final = 1
_FAST_ZSTD_LEVEL: Final = 3
# ISA-L has three levels. The second is as fast as the first and its output is smaller. It has no
# equivalent of zlib's level 4 and above.
_ISAL_LEVEL_MAX: Final = 3
_GZIP_WBITS: Final = zlib.MAX_WBITS | 16


class Encoder(NamedTuple):
    """A body that is being compressed. The results of the calls, joined, are the coded body."""

    compress: Callable[[bytes], bytes]  # takes octets, returns those that can be sent now
    flush: Callable[[], bytes]  # octets that let the client decode everything so far
    finish: Callable[[], bytes]  # the end of the body


class Compressor(NamedTuple):
    """One coding at one level."""

    whole: Callable[[bytes], bytes]  # not for two threads at once
    encoder: Callable[[], Encoder]
    encoder_bytes: int  # memory of an encoder (measured)
    inline_bytes_max: int  # this much takes 0.2 ms: a thread is not worth its cost


# -- what is installed ----------------------------------------------------------------------------


@cache
def _installed(module: str) -> bool:
    package, _, submodule = module.partition(".")
    spec = PathFinder.find_spec(package)
    if spec is None or not submodule:
        return spec is not None
    return PathFinder.find_spec(module, spec.submodule_search_locations) is not None


def _standard_zstd() -> str:
    """Return the name of the module with the standard library's interface to zstd, or ""."""
    if sys.version_info >= (3, 14):
        return "compression.zstd" if _installed("_zstd") else ""
    return "backports.zstd" if _installed("backports.zstd") else ""


def available(coding: bytes) -> bool:
    """Return, without importing anything, whether this coding can be encoded and decoded."""
    if coding == b"br":
        return _installed("brotli")
    if coding == b"zstd":
        return bool(_standard_zstd()) or _installed("zstandard")
    return coding == b"gzip"


@cache
def decodable() -> frozenset[bytes]:
    """Return the codings that can be decoded here."""
    return frozenset({b"gzip", b"deflate", *filter(available, (b"br", b"zstd"))})


def compressor(coding: bytes, level: int | None = None) -> Compressor:
    """Make a compressor for a coding that is available.

    Args:
        level: For forwarded bodies: gzip's 1 to 9 (the other codings have one fast level). None is
            the level for stored bodies.
    """
    if coding == b"br":
        return _brotli(_STORED_BROTLI_QUALITY if level is None else _FAST_BROTLI_QUALITY)
    if coding == b"zstd":
        zstd_level = _STORED_ZSTD_LEVEL if level is None else _FAST_ZSTD_LEVEL
        if name := _standard_zstd():
            return _zstd_of_standard_library(import_module(name), zstd_level)
        return _zstandard(zstd_level)
    if level is not None and level <= _ISAL_LEVEL_MAX and _installed("isal"):
        return _isal(max(2, level))
    return _zlib(_STORED_GZIP_LEVEL if level is None else level)


# -- gzip -----------------------------------------------------------------------------------------


def _zlib(level: int) -> Compressor:
    return _deflate(zlib, level, encoder_bytes=270 * 1024, inline_bytes_max=32 * 1024)


def _isal(level: int) -> Compressor:
    library = import_module("isal.isal_zlib")
    return _deflate(library, level, encoder_bytes=130 * 1024, inline_bytes_max=128 * 1024)


def _deflate(library: Any, level: int, encoder_bytes: int, inline_bytes_max: int) -> Compressor:
    """Take a module with zlib's interface, which ISA-L has too."""

    def whole(body: bytes) -> bytes:
        coded: bytes = library.compress(body, level, _GZIP_WBITS)
        return coded

    def encoder() -> Encoder:
        deflater = library.compressobj(level, library.DEFLATED, _GZIP_WBITS)
        return Encoder(deflater.compress, lambda: deflater.flush(zlib.Z_SYNC_FLUSH), deflater.flush)

    return Compressor(whole, encoder, encoder_bytes, inline_bytes_max)


# -- br -------------------------------------------------------------------------------------------


def _brotli_encoder(encoder: Any) -> Encoder:
    return Encoder(encoder.process, encoder.flush, encoder.finish)


def _brotli(quality: int) -> Compressor:
    brotli = import_module("brotli")

    def whole(body: bytes) -> bytes:
        coded: bytes = brotli.compress(body, quality=quality)
        return coded

    return Compressor(
        whole,
        lambda: _brotli_encoder(brotli.Compressor(quality=quality)),
        encoder_bytes=300 * 1024,
        inline_bytes_max=64 * 1024,
    )


# -- zstd -----------------------------------------------------------------------------------------
# All levels used here have a window of at most 8 MiB, which every client accepts (RFC 9659).


def _standard_zstd_encoder(encoder: Any) -> Encoder:
    flush = encoder.flush
    block, frame = encoder.FLUSH_BLOCK, encoder.FLUSH_FRAME
    return Encoder(encoder.compress, lambda: flush(block), lambda: flush(frame))


def _zstd_of_standard_library(zstd: Any, level: int) -> Compressor:
    reused = zstd.ZstdCompressor(level=level)  # making one costs 10 us

    def whole(body: bytes) -> bytes:
        coded: bytes = reused.compress(body, mode=reused.FLUSH_FRAME)
        return coded

    return Compressor(
        whole,
        lambda: _standard_zstd_encoder(zstd.ZstdCompressor(level=level)),
        encoder_bytes=850 * 1024,
        inline_bytes_max=64 * 1024,
    )


def _zstandard_encoder(encoder: Any, flush_block: int) -> Encoder:
    return Encoder(encoder.compress, lambda: encoder.flush(flush_block), encoder.flush)


def _zstandard(level: int) -> Compressor:
    zstandard = import_module("zstandard")
    make, flush_block = zstandard.ZstdCompressor, zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return Compressor(
        make(level=level).compress,
        lambda: _zstandard_encoder(make(level=level).compressobj(), flush_block),
        encoder_bytes=850 * 1024,
        inline_bytes_max=64 * 1024,
    )


# -- decoding -------------------------------------------------------------------------------------

# A frame of zstd declares the memory that its decoder needs, up to 2 GiB. A content coding must not
# need more than this (RFC 9659 section 3).
_ZSTD_WINDOW_LOG_MAX: Final = 23  # 8 MiB

# A body may have several gzip members or zstd frames, one after the other. bgzip makes one for each
# 64 KiB: 256 for the largest body. Each one costs some microseconds and a copy of the rest.
MEMBERS_MAX: Final = 256


def decoded(
    body: bytes, coding: bytes, bytes_max: int, members_max: int = MEMBERS_MAX
) -> bytes | None:
    """Decode a whole body. None if the coding is unknown, or the body broken, cut or too large.

    Args:
        bytes_max: Most octets of the decoded body. Nothing is decoded beyond that.
        members_max: Most members of gzip, or frames of zstd, in one body.
    """
    if coding == b"gzip":
        return _inflated(body, _GZIP_WBITS, bytes_max, members_max)
    if coding == b"deflate":
        # With the zlib wrapper as the RFC says, or without it as some servers send it.
        plain = _inflated(body, zlib.MAX_WBITS, bytes_max, members_max)
        if plain is None:
            plain = _inflated(body, -zlib.MAX_WBITS, bytes_max, members_max)
        return plain
    if coding == b"br" and available(coding):
        return _unbrotlied(body, bytes_max)
    if coding == b"zstd" and available(coding):
        if name := _standard_zstd():
            return _unzstded(import_module(name), body, bytes_max, members_max)
        return _unzstandarded(body, bytes_max, members_max)
    return None


def is_cut(body: bytes, coding: bytes, bytes_max: int, members_max: int = MEMBERS_MAX) -> bool:
    """Return whether a body ends before its coding does, or is broken. False if it is not known.

    Args:
        bytes_max: Most octets of the decoded body; the end of a larger one is not looked for.
        members_max: Most members of gzip in one body; with more, the end is not looked for.
    """
    if not body:
        return False  # an empty body is not cut
    if coding == b"gzip":
        room = bytes_max
        for member in range(members_max):
            inflater = zlib.decompressobj(_GZIP_WBITS)
            try:
                room -= len(inflater.decompress(body, room))
            except zlib.error:
                return member == 0  # what follows a whole one may be padding
            if room <= 0:
                return False
            if not inflater.eof:
                return True
            body = inflater.unused_data
            if not body:
                return False
        return False
    if coding == b"br" and available(coding):
        brotli = import_module("brotli")
        decoder = brotli.Decompressor()
        try:
            plain: bytes = decoder.process(body, output_buffer_limit=bytes_max)
        except brotli.error:
            return True
        return len(plain) < bytes_max and not decoder.is_finished()
    return False


def _inflated(body: bytes, wbits: int, bytes_max: int, members_max: int) -> bytes | None:
    pieces: list[bytes] = []
    room = bytes_max
    while body and len(pieces) < members_max:
        inflater = zlib.decompressobj(wbits)
        try:
            piece = inflater.decompress(body, room + 1)
        except zlib.error:
            return None
        if len(piece) > room or not inflater.eof:
            return None
        pieces.append(piece)
        room -= len(piece)
        body = inflater.unused_data  # a gzip body may have several members
    return None if body else b"".join(pieces)


def _unbrotlied(body: bytes, bytes_max: int) -> bytes | None:
    brotli = import_module("brotli")
    decoder = brotli.Decompressor()
    try:
        plain: bytes = decoder.process(body, output_buffer_limit=bytes_max + 1)
    except brotli.error:
        return None
    return plain if decoder.is_finished() and len(plain) <= bytes_max else None


def _unzstded(zstd: Any, body: bytes, bytes_max: int, members_max: int) -> bytes | None:
    pieces: list[bytes] = []
    room = bytes_max
    while body and len(pieces) < members_max:
        decoder = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX}
        )
        try:
            piece: bytes = decoder.decompress(body, room + 1)
        except zstd.ZstdError:
            return None
        if len(piece) > room or not decoder.eof:
            return None
        pieces.append(piece)
        room -= len(piece)
        body = decoder.unused_data  # a body may have several frames
    return None if body else b"".join(pieces)


def _unzstandarded(body: bytes, bytes_max: int, members_max: int) -> bytes | None:
    zstandard = import_module("zstandard")
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW_LOG_MAX)
    try:
        # Its only interface with a limit does not distinguish a whole body from a truncated one.
        reader = decompressor.stream_reader(body, read_across_frames=True)
        plain: bytes = reader.read(bytes_max + 1)
        if len(plain) > bytes_max:
            return None
        frames = 0
        while body and frames < members_max:
            frame = decompressor.decompressobj()
            frame.decompress(body)
            if not frame.eof:
                return None
            body = frame.unused_data
            frames += 1
    except zstandard.ZstdError:
        return None
    return None if body else plain
