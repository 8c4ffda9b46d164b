"""Authentication schemes that authenticate a connection instead of a request (RFC 4559)."""

from retter.base.limits import LIST_MEMBERS_MAX
from retter.http.message import Fields

_SCHEMES = (b"ntlm", b"negotiate", b"kerberos")
_SCHEME_BYTES_MAX = 10


def names_binding_scheme(fields: Fields, name: bytes) -> bool:
    """Return whether a field of that lower-case name contains such a scheme.

    A field may contain several challenges (RFC 9110 section 11.6.1), and all are checked. A field
    with too many of them counts as one that contains such a scheme.
    """
    for field_name, value in fields:
        if field_name == name:
            if value.count(b",") >= LIST_MEMBERS_MAX:
                return True
            for part in value.split(b","):
                if part.strip(b" \t")[:_SCHEME_BYTES_MAX].lower().startswith(_SCHEMES):
                    return True
    return False
