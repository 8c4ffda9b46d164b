"""Every compressor, whole and in pieces, against every decoder, and decoders against bombs."""

import sys
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from retter.compression import compressors
from retter.compression.compressors import (
    MEMBERS_MAX,
    Compressor,
    available,
    compressor,
    decodable,
    decoded,
)

TEXT = b"".join(b"<li>article %d, %d euros</li>\n" % (n, n * 7919 % 500) for n in range(4000))
MIB = 1024 * 1024

STANDARD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
ZSTD_SOURCES = (STANDARD, "zstandard")


def need(module: str) -> Any:
    return pytest.importorskip(module, reason=f"{module} is not installed")


def make(name: str) -> tuple[bytes, Compressor]:
    """Return a coding and a compressor for it, by the library that makes it."""
    if name == "zlib":
        return b"gzip", compressors._zlib(1)
    if name == "isal":
        need("isal")
        return b"gzip", compressors._isal(2)
    if name == "brotli":
        need("brotli")
        return b"br", compressors._brotli(1)
    need(name)
    if name == "zstandard":
        return b"zstd", compressors._zstandard(3)
    return b"zstd", compressors._zstd_of_standard_library(import_module(name), 3)


NAMES = ("zlib", "isal", "brotli", *ZSTD_SOURCES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("body", [b"", b"x", TEXT])
def test_a_whole_body_comes_back(name: str, body: bytes) -> None:
    coding, how = make(name)
    for _ in range(2):  # what is reused is as new
        assert decoded(how.whole(body), coding, MIB) == body
    assert len(how.whole(TEXT)) < len(TEXT) / 3


@pytest.mark.parametrize("name", NAMES)
def test_a_body_in_pieces_comes_back(name: str) -> None:
    coding, how = make(name)
    encoder = how.encoder()
    coded = b""
    for at in range(0, len(TEXT), 7000):
        coded += encoder.compress(TEXT[at : at + 7000])
        if at % 3 == 0:
            coded += encoder.flush()
    assert decoded(coded, coding, MIB) is None  # it has no end yet
    coded += encoder.finish()
    assert decoded(coded, coding, MIB) == TEXT
    assert len(coded) < len(TEXT) / 3


@pytest.mark.parametrize("name", NAMES)
def test_after_a_flush_all_can_be_decoded(name: str) -> None:
    coding, how = make(name)
    encoder = how.encoder()
    decode: Callable[[bytes], bytes]
    if coding == b"gzip":
        decode = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress
    elif coding == b"br":
        process = need("brotli").Decompressor().process

        def all_of(data: bytes) -> bytes:
            pieces: list[bytes] = [process(data), *iter(lambda: process(b""), b"")]  # of 32 KiB
            return b"".join(pieces)

        decode = all_of

    elif name == "zstandard":
        decode = need(name).ZstdDecompressor().decompressobj().decompress
    else:
        decode = need(name).ZstdDecompressor().decompress
    for piece in (b"top", TEXT, b"x"):
        assert decode(encoder.compress(piece) + encoder.flush()) == piece


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
@pytest.mark.parametrize("level", [None, 1, 2, 3, 4, 9])
def test_levels(coding: str, level: int | None) -> None:
    if not available(coding.encode()):
        pytest.skip(f"{coding} is not installed")
    how = compressor(coding.encode(), level)
    assert decoded(how.whole(TEXT), coding.encode(), MIB) == TEXT


def test_without_packages_there_is_gzip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressors, "_installed", lambda module: False)
    assert [coding for coding in (b"gzip", b"br", b"zstd", b"x") if available(coding)] == [b"gzip"]
    assert decodable.__wrapped__() == {b"gzip", b"deflate"}
    assert decoded(compressor(b"gzip", 1).whole(TEXT), b"gzip", MIB) == TEXT
    assert decoded(b"x", b"br", MIB) is None and decoded(b"x", b"zstd", MIB) is None


@pytest.mark.parametrize("name", ZSTD_SOURCES)
def test_zstd_is_decoded_by_what_there_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, how = make(name)
    monkeypatch.setattr(compressors, "_standard_zstd", lambda: "" if name == "zstandard" else name)
    coded = how.whole(TEXT)
    assert decoded(coded, b"zstd", len(TEXT)) == TEXT
    assert decoded(coded + coded, b"zstd", MIB) == TEXT + TEXT  # two frames
    for broken in (coded[:-1], coded[:20], coded + b"x", b"nonsense", coded[:50] + coded[60:]):
        assert decoded(broken, b"zstd", MIB) is None
    assert decoded(coded, b"zstd", len(TEXT) - 1) is None
    assert compressor(b"zstd").whole(TEXT) != b""


@pytest.mark.parametrize("name", ["zlib", "brotli", *ZSTD_SOURCES])
def test_bombs_do_not_go_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coding, how = make(name)
    monkeypatch.setattr(compressors, "_standard_zstd", lambda: "" if name == "zstandard" else name)
    encoder = how.encoder()
    zeros = bytes(MIB)
    bomb = b"".join(encoder.compress(zeros) for _ in range(64)) + encoder.finish()
    assert len(bomb) < MIB
    import tracemalloc

    tracemalloc.start()
    assert decoded(bomb, coding, 100_000) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB


@pytest.mark.parametrize("name", ZSTD_SOURCES)
def test_a_frame_that_asks_for_much_memory_gets_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """18 octets may ask for a window of 128 MiB; RFC 9659 lets a content coding have 8."""
    made = need("zstandard")
    monkeypatch.setattr(compressors, "_standard_zstd", lambda: "" if name == "zstandard" else name)
    for log, found in ((23, TEXT), (24, None), (27, None)):
        parameters = made.ZstdCompressionParameters(window_log=log)
        encoder = made.ZstdCompressor(compression_params=parameters).compressobj()
        frame = encoder.compress(TEXT) + encoder.flush()
        assert made.get_frame_parameters(frame).window_size == 1 << log
        assert decoded(frame, b"zstd", MIB) == found


@pytest.mark.parametrize("name", ["zlib", *ZSTD_SOURCES])
def test_members_may_be_few(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coding, how = make(name)
    monkeypatch.setattr(compressors, "_standard_zstd", lambda: "" if name == "zstandard" else name)
    assert decoded(how.whole(b"x") * 3, coding, MIB, 3) == b"xxx"
    assert decoded(how.whole(b"x") * 4, coding, MIB, 3) is None


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd", b"compress", b""])
def test_nonsense_is_not_decoded(coding: bytes) -> None:
    assert decoded(b"nonsense, and a lot of it", coding, MIB) is None


def test_brotli_that_is_cut_or_goes_on_is_not_decoded() -> None:
    coded = make("brotli")[1].whole(TEXT)
    for broken in (coded[:-1], coded + b"x", coded[:50] + b"\0" + coded[51:]):
        assert decoded(broken, b"br", MIB) != TEXT
    assert decoded(coded, b"br", len(TEXT)) == TEXT
    assert decoded(coded, b"br", len(TEXT) - 1) is None


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
def test_a_body_of_very_many_empty_members_is_none(coding: bytes) -> None:
    """Each costs some microseconds and a copy of the rest: a megabyte of them took seconds."""
    if not available(coding):
        pytest.skip(f"{coding.decode()} is not installed")
    empty = compressor(coding).whole(b"")
    assert decoded(empty * MEMBERS_MAX, coding, MIB) == b""
    assert decoded(empty * (MEMBERS_MAX + 1), coding, MIB) is None
