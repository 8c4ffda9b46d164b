"""The cookie that carries a ticket (breaker/tickets.py): it is removed from requests first of all.

The application never gets it, no log contains it, and no owner and no store key depends on it.
"""

from typing import Final

NAME: Final = b"retter_turn"
_NAME_AND_EQUALS: Final = NAME + b"="
_ALPHABET: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"
VALUE_BYTES_MAX: Final = 64  # a longer one, or one with other octets, belongs to the application


def without_ticket(head: bytes) -> tuple[bytes, bytes]:
    """Return a request's head without the cookie, and its value; b"" if there is none.

    All other octets stay unchanged. If a Cookie line contains nothing else, the line is removed.
    """
    if head.find(NAME) < 0:  # costs half of `in`
        return head, b""
    lines = head.split(b"\r\n")
    kept: list[bytes] = []
    ticket = b""
    for line in lines:
        if line[:7].lower() == b"cookie:" and NAME in line:
            left, value = _without_pairs(line)
            ticket = ticket or value
            if value and not left[7:].strip(b" \t"):
                continue
            line = left
        kept.append(line)
    return b"\r\n".join(kept), ticket


def _without_pairs(line: bytes) -> tuple[bytes, bytes]:
    ticket = b""
    kept: list[bytes] = []
    for piece in line[7:].split(b";"):
        pair = piece.strip(b" \t")
        if pair.startswith(_NAME_AND_EQUALS):
            value = pair[len(_NAME_AND_EQUALS) :]
            if len(value) <= VALUE_BYTES_MAX and not value.strip(_ALPHABET):
                ticket = ticket or value or b"-"
                continue
        kept.append(piece)
    return line[:7] + b";".join(kept), ticket


def set_ticket(ticket: bytes, max_age_s: int, *, secure: bool) -> str:
    """Return the value of the Set-Cookie field that sets a ticket."""
    end = "; Secure" if secure else ""
    return (
        f"{NAME.decode()}={ticket.decode()}; Max-Age={max_age_s}; Path=/; HttpOnly; "
        f"SameSite=Lax{end}"
    )
