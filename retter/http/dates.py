"""HTTP-date (RFC 9110 section 5.6.7): the three formats that a recipient must accept, no others.

Dates are written in the first format, IMF-fixdate. The names of days and months are defined here,
because those of `time.strftime` depend on the locale, and a program that embeds RETTER may have set
one.
"""

import re
from typing import Final

_DAY_NAMES: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTH_NAMES: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_MONTHS: Final = {
    name.lower().encode(): number for number, name in enumerate(_MONTH_NAMES, start=1)
}
_TIME = rb"(?P<h>[0-9]{2}):(?P<m>[0-9]{2}):(?P<s>[0-9]{2})"
_FORMATS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Sun, 06 Nov 1994 08:49:37 GMT; the older format of cookies has hyphens in the date
        rb"[a-z]{3}, (?P<day>[0-9]{2})[ -](?P<month>[a-z]{3})[ -](?P<year>[0-9]{4}) "
        + _TIME
        + rb" GMT",
        # Sunday, 06-Nov-94 08:49:37 GMT
        rb"[a-z]{6,9}, (?P<day>[0-9]{2})-(?P<month>[a-z]{3})-(?P<year>[0-9]{2}) "
        + _TIME
        + rb" GMT",
        # Sun Nov  6 08:49:37 1994
        rb"[a-z]{3} (?P<month>[a-z]{3}) (?P<day>[ 0-9][0-9]) " + _TIME + rb" (?P<year>[0-9]{4})",
    )
)


def parse_http_date(value: bytes) -> int | None:
    """Return the seconds since 1970, or None if the value is no HTTP-date."""
    for pattern in _FORMATS:
        if match := pattern.fullmatch(value):
            break
    else:
        return None
    month = _MONTHS.get(match["month"].lower())
    day, year = int(match["day"]), int(match["year"])
    hour, minute, second = int(match["h"]), int(match["m"]), int(match["s"])
    if month is None or not 1 <= day <= 31 or hour > 23 or minute > 59 or second > 60 or year < 1:
        return None
    if len(match["year"]) == 2:
        # The RFC requires the century nearest to now. This format is not used any more. A fixed
        # pivot year needs no clock and is correct until 2069.
        year += 2000 if year < 70 else 1900
    return 86_400 * _days_since_1970(year, month, day) + 3600 * hour + 60 * minute + second


# RFC 6265 section 5.1.1: what is between the parts of a date of a cookie, and the parts.
_cookie_date_parts: Final = re.compile(rb"[0-9A-Za-z:\x80-\xff]++").findall
_cookie_time: Final = re.compile(rb"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?![0-9])").match
_cookie_day: Final = re.compile(rb"[0-9]{1,2}(?![0-9])").match
_cookie_year: Final = re.compile(rb"[0-9]{2,4}(?![0-9])").match
COOKIE_DATE_BYTES_MAX: Final = 64  # real ones have 33 at most


def parse_cookie_date(value: bytes) -> int | None:
    """Return the seconds since 1970 as a browser reads `Expires` of a cookie; None if it does not.

    Applications write more forms there than HTTP-date has, such as `-0000` in place of `GMT`.
    Browsers do not read the zone.
    """
    known = parse_http_date(value)
    if known is not None or len(value) > COOKIE_DATE_BYTES_MAX:
        return known
    time: tuple[int, int, int] | None = None
    day = month = year = -1
    for part in _cookie_date_parts(value):
        if time is None and (match := _cookie_time(part)):
            time = int(match[1]), int(match[2]), int(match[3])
        elif day < 0 and (match := _cookie_day(part)):
            day = int(match[0])
        elif month < 0 and part[:3].lower() in _MONTHS:
            month = _MONTHS[part[:3].lower()]
        elif year < 0 and (match := _cookie_year(part)):
            year = int(match[0])
    if time is None or month < 0 or year < 0 or not 1 <= day <= 31:
        return None
    if year < 100:
        year += 2000 if year < 70 else 1900
    hour, minute, second = time
    if year < 1601 or hour > 23 or minute > 59 or second > 59:
        return None
    return 86_400 * _days_since_1970(year, month, day) + 3600 * hour + 60 * minute + second


def _days_since_1970(year: int, month: int, day: int) -> int:
    """Return the number of days from 1970 to a date; a 31 June counts as the first of July.

    To import the standard library's calendar.timegm would take 0.15 MB.
    """
    if month < 3:  # here a year ends with February, so a leap day is its last day
        year, month = year - 1, month + 12
    return (
        365 * year
        + year // 4
        - year // 100
        + year // 400
        + (153 * month - 457) // 5
        + day
        - 719_469
    )


def format_http_date(utc: tuple[int, int, int, int, int, int, int, int, int]) -> str:
    """Return a time in UTC (`time.gmtime`) as an IMF-fixdate, the format that must be sent."""
    year, month, day, hour, minute, second, weekday, _, _ = utc
    date = f"{_DAY_NAMES[weekday]}, {day:02d} {_MONTH_NAMES[month - 1]} {year:04d}"
    return f"{date} {hour:02d}:{minute:02d}:{second:02d} GMT"
