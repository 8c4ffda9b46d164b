"""The grammar of values as regular expressions of ECMA 262, for the JSON Schema of the file.

Each one accepts the texts that its parser (units.py, kinds.py) accepts, and no others, apart from
what only arithmetic finds: a number out of its bounds, a part of a byte, and a path of a Unix
socket that has too many bytes. A test compares them with the parsers.
"""

from collections.abc import Iterable
from typing import Final

from retter.config.units import DURATION_UNITS, FALSE_WORDS, LISTEN_OPTIONS, SIZE_UNITS, TRUE_WORDS

# Signs whose lower case is a letter of a word, besides its own upper case: the sign of Kelvin.
_ALSO: Final = {"k": "\N{KELVIN SIGN}"}

_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"


def _any_case(word: str) -> str:
    """Return a pattern of a word in upper and lower case: ECMA 262 has no flag within a pattern."""
    return "".join([_letter(one) for one in word])


def _letter(one: str) -> str:
    upper = one.upper()
    if upper == one or upper.lower() != one:  # a digit; the micro sign, whose upper case is a mu's
        return one
    return f"[{one}{upper}{_ALSO.get(one, '')}]"


def words(found: Iterable[str]) -> str:
    """Return a pattern of any of these words, in any case, with white space around it."""
    return rf"^\s*(?:{'|'.join([_any_case(word) for word in sorted(found)])})\s*$"


def _units(found: Iterable[str]) -> str:
    return "|".join([_any_case(unit) for unit in found if unit])


# Of a duration with units, a number that begins with its point has no exponent (`_DURATION_PART`).
_PART: Final = (
    r"(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*"
    rf"(?:{_units(DURATION_UNITS)})"
)

DURATION: Final = rf"^\s*(?:{_NUMBER}\s*|(?:{_PART}\s*)+)$"
SIZE: Final = rf"^\s*[0-9]{{1,18}}(?:\.[0-9]{{1,9}})?\s*(?:(?:{_units(SIZE_UNITS)})\s*)?$"
SHARE: Final = rf"^\s*{_NUMBER}\s*(?:%\s*)?$"
SWITCH: Final = words(TRUE_WORDS | FALSE_WORDS)
COUNT: Final = r"^\s*[0-9]{1,18}\s*$"
PROCESSES: Final = rf"^\s*(?:0*[1-9][0-9]*|{_any_case('auto')})\s*$"
BITS: Final = r"^\s*[0-9]+\s*,\s*[0-9]+\s*$"
TEXT: Final = r"^[^\u0000]*$"

# Addresses

_PORT: Final = "(?:[0-9]{1,4}|[0-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_GROUP: Final = "[0-9A-Fa-f]{1,4}"


def _ipv6() -> str:
    """The rule IPv6address of RFC 3986 section 3.2.2."""

    def groups(least: int, most: int) -> str:
        return f"(?:{_GROUP}:){{{least},{most}}}"

    # So many groups at most before the two colons, and the others up to the last two behind them.
    cut = [f"(?:{groups(0, most - 1)}{_GROUP})?::{groups(5 - most, 5 - most)}"
           for most in range(1, 6)]  # fmt: skip
    begins = "|".join([groups(6, 6), f"::{groups(5, 5)}", *cut])
    last = f"(?:{_GROUP}:{_GROUP}|{_IPV4})"
    one = f"(?:{groups(0, 5)}{_GROUP})?::{_GROUP}"
    none = f"(?:{groups(0, 6)}{_GROUP})?::"
    return f"(?:(?:{begins}){last}|{one}|{none})"


# A name whose last label is a number can only be an IPv4 address.
_NAME: Final = (
    r"(?!(?:[A-Za-z0-9_.-]*\.)?[0-9]+(?![A-Za-z0-9_.-]))[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}"
)
_HOST: Final = rf"(?:{_IPV4}|\[{_ipv6()}(?:%[A-Za-z0-9_.-]{{1,32}})?\]|{_NAME})"


def _listen(options: str) -> str:
    # After the first comma come options, and white space around each part does not count.
    tcp = rf"(?:{_PORT}|(?:{_HOST}|\*)?:{_PORT})"
    return rf"\s*(?:{tcp}|unix:[^,\u0000]*[^,\u0000\s])\s*{options}"


def _options() -> str:
    first, second = LISTEN_OPTIONS
    return rf"(?:,\s*(?:{first}\s*(?:,\s*{second}\s*)?|{second}\s*(?:,\s*{first}\s*)?))?"


LISTEN: Final = f"^{_listen(_options())}$"
ADMIN: Final = rf"^(?:|auto|off|{_listen('')})$"

# In a URL the host or the port may be missing, but not both. All else ends with a port.
_URL: Final = r"[hH][tT][tT][pP][sS]?://(?![/\s]|$)"
_NO_URL: Final = r"(?=[^/]*:[0-9]+\s*$)"
_NOT_ZERO: Final = f"(?!0+(?![0-9])){_PORT}"
UPSTREAM: Final = (
    rf"^\s*(?!\s)(?:{_NOT_ZERO}|(?:{_URL}|{_NO_URL}){_HOST}?(?::{_NOT_ZERO})?/?"
    rf"|unix:[^\u0000]*[^\u0000\s])\s*$"
)
