"""The wall clock for Date fields."""

import time

from retter.http.dates import format_http_date


class WallClock:
    """Formats the time, once a second."""

    __slots__ = ("_date", "_second")

    def __init__(self) -> None:
        self._date = ""
        self._second = -1

    def http_date(self) -> str:
        """Return the time in the form of a Date field (RFC 9110 section 5.6.7)."""
        second = int(time.time())
        if second != self._second:
            # The standard library's formatdate would import 0.7 MB of modules for e-mail.
            self._date, self._second = format_http_date(time.gmtime(second)), second
        return self._date
