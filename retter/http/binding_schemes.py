"""Authentication schemes after which a connection is one person's (RFC 4559)."""

from retter.base.limits import LIST_MEMBERS_MAX
from retter.http.message import Fields

_SCHEMES = (b"ntlm", b"negotiate", b"kerberos")
_SCHEME_BYTES_MAX = 10


def names_binding_scheme(fields: Fields, name: bytes) -> bool:
    """Return whether a field of that lower-case name speaks of such a scheme.

    Of a field with several challenges, each is looked at (RFC 9110 section 11.6.1). One with more
    than are looked at is taken for such a scheme.
    """
    for field_name, value in fields:
        if field_name == name:
            if value.count(b",") >= LIST_MEMBERS_MAX:
                return True
            for part in value.split(b","):
                if part.strip(b" \t")[:_SCHEME_BYTES_MAX].lower().startswith(_SCHEMES):
                    return True
    return False
