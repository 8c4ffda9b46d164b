"""The files that settings name: a mistake is one line, and no read without end.

A named pipe that nobody writes to would stop the start for ever, and a device such as /dev/zero has
no end. Symbolic links are followed: Kubernetes makes its secrets of them.
"""

import os
import select
import stat
import time
from errno import EISDIR
from typing import Final

from retter.config.settings import ConfigError
from retter.config.units import format_duration, format_size

CONFIG_BYTES_MAX: Final = 1024 * 1024
"""The file of `retter config init`, which explains every setting, has 18 KiB."""

SECRET_BYTES_MAX: Final = 4096
"""A secret or a token has some dozens of characters; a longer file is another one by mistake."""

PAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""An error page with its pictures inside. Each browser gets all of it during an outage."""

PEM_BYTES_MAX: Final = 1024 * 1024
"""All public certificate authorities together have a quarter of it."""

PIPE_S: Final = 5.0
"""Time for a program at the other end of a pipe, as in `--config <(program)`."""


def read_file(named: str, path: str, bytes_max: int, *, pipe: bool = False) -> bytes:
    """Return the content of a file that a setting names.

    Args:
        named: The setting, as a complaint names it.
        pipe: A pipe may be read too. It can be read only once.

    Raises:
        ConfigError: It cannot be read, is larger, or is something else than a file.
    """
    try:
        descriptor = _opened(named, path, pipe=pipe)
        if descriptor < 0:
            return b""
        try:
            data = _content(named, path, descriptor, bytes_max + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"{named}: {path}: {error.strerror}") from None
    if len(data) > bytes_max:
        raise _too_large(named, path, bytes_max)
    return data


def check_file(named: str, path: str, bytes_max: int, *, pipe: bool = False) -> None:
    """Check what can be known of a file without reading it; arguments and errors as above."""
    try:
        descriptor = _opened(named, path, pipe=pipe)
        if descriptor < 0:
            return
        try:
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError(f"{named}: {path}: {error.strerror}") from None
    if size > bytes_max:
        raise _too_large(named, path, bytes_max)


def _too_large(named: str, path: str, bytes_max: int) -> ConfigError:
    return ConfigError(f"{named}: {path}: larger than the {format_size(bytes_max)} allowed")


def _opened(named: str, path: str, *, pipe: bool) -> int:
    """Return a descriptor of the file; -1 for /dev/null, which is an empty file."""
    # Without O_NONBLOCK, to open a named pipe waits for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if _is_readable(named, path, os.fstat(descriptor), pipe=pipe):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return -1


def _is_readable(named: str, path: str, found: os.stat_result, *, pipe: bool) -> bool:
    """Return whether an opened file can be read, and False for /dev/null.

    Raises:
        ConfigError: It is something else than a file.
        OSError: It is a folder.
    """
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFREG or (pipe and kind == stat.S_IFIFO):
        return True
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
    if kind == stat.S_IFCHR and found.st_rdev == os.stat(os.devnull).st_rdev:
        return False
    if kind == stat.S_IFIFO:
        raise ConfigError(
            f"{named}: {path}: it is a pipe, which can be read only once; give a file"
        )
    wanted = "a file or a pipe" if pipe else "a file"
    raise ConfigError(f"{named}: {path}: it is a device; give {wanted}")


def _content(named: str, path: str, descriptor: int, bytes_max: int) -> bytes:
    data = bytearray()
    poll, until = select.poll(), time.monotonic() + PIPE_S
    poll.register(descriptor, select.POLLIN)
    while len(data) < bytes_max:
        # A regular file is always ready.
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise ConfigError(
                f"{named}: {path}: this pipe has not come to its end after "
                f"{format_duration(PIPE_S)}; let a program write to it and close it, or give a file"
            )
        try:
            piece = os.read(descriptor, bytes_max - len(data))
        except BlockingIOError:
            continue
        if not piece:
            break
        data += piece
    return bytes(data)
