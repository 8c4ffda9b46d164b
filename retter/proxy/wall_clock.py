"""The wall clock as heads show it."""

import time

from retter.http.dates import format_http_date


class WallClock:
    """Words the time once a second."""

    __slots__ = ("_date", "_second")

    def __init__(self) -> None:
        self._date = ""
        self._second = -1

    def http_date(self) -> str:
        """Return the time as in a Date field (RFC 9110 section 5.6.7)."""
        second = int(time.time())
        if second != self._second:
            # The standard library's formatdate would bring 0.7 MB of e-mail with it.
            self._date, self._second = format_http_date(time.gmtime(second)), second
        return self._date
