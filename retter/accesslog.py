"""One JSON line a request (`--access-log`), collected and written together.

A line by way of a logging library costs more than an answer from the store, so the lines are made
here and written once a tick. No cookie, credential or session ever stands in one: the owner is
told by its class alone, and a target that carries a session is cut before it.
"""

import sys
import time
from contextlib import suppress
from json import dumps
from typing import TextIO

from retter.message import RequestHead
from retter.owner import OwnerRules
from retter.policy import Identity, url_sessions


def _shown(target: bytes, rules: OwnerRules) -> str:
    if url_sessions(target, rules):
        return target.partition(b"?")[0].partition(b";")[0].decode("latin-1") + "?(session)"
    return target.decode("latin-1")


class AccessLog:
    """Collects lines and writes them when flushed.

    Args:
        path: A file, which is appended to, or `-` for standard output.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str, rules: OwnerRules) -> None:
        self.rules = rules
        self._path = path
        self._file: TextIO = sys.stdout
        if path != "-":
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._lines: list[str] = []

    def add(
        self,
        client: str,
        request: RequestHead | None,
        identity: Identity | None,
        status: int,
        source: str,
        reason: str,
        took_s: float,
    ) -> None:
        """Note one answered request.

        Args:
            request: None if its head could not be read.
            status: 0 if the client left before an answer began.
            source: "backend", "cache", or "retter" for answers of our own.
        """
        record: dict[str, str | int | float] = {"time": round(time.time(), 3), "client": client}
        if request is not None:
            record["method"] = request.method.decode()
            record["host"] = request.host.decode("latin-1")
            record["target"] = _shown(request.target, self.rules)
        record |= {"status": status, "source": source, "reason": reason}
        record["took_ms"] = round(took_s * 1000, 2)
        if identity is not None:
            record["owner"] = identity.owner_class.value
        self._lines.append(dumps(record))

    def flush(self) -> None:
        """Write what has been collected. A full disk loses lines, never requests."""
        if self._lines:
            lines, self._lines = self._lines, []
            try:
                self._file.write("\n".join(lines) + "\n")
                self._file.flush()
            except OSError:
                return

    def close(self) -> None:
        """Write the rest and close the file."""
        self.flush()
        if self._file is not sys.stdout:
            with suppress(OSError):  # the full disk again
                self._file.close()
