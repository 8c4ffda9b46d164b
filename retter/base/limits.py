"""Limits on what a peer may repeat within one message.

The settings bound a head in bytes and in lines. Within these bounds, a peer can still repeat one
byte tens of thousands of times: an empty cookie, a comma, a parameter. Each would cost a step of
Python while all other clients wait. So each such number has a limit here, well above what browsers,
crawlers and applications send. With these limits, 64 KiB of anything take at most 3 ms of CPU on
the machine of the other measurements (benchmarks/abuse.md).

Beyond a limit, RETTER assumes the worst: what it has not examined may identify anybody, so nothing
is stored and nothing is changed. What no sane program sends is refused.
"""

from typing import Final

COOKIES_MAX: Final = 192
"""Cookies of a request. Chromium keeps 180 of a site, Firefox 150.

Beyond: forwarded, but neither stored nor answered from the store (`OwnerClass.UNREAD`). Some
applications also end a cookie at a comma. With more commas than that, all octets of the field
identify the owner.
"""

PARAMETERS_MAX: Final = 512
"""Parameters and path segments of a target, together. A search form has dozens. A table with six
parameters for each column has some hundreds. A path has a dozen segments.

Beyond: as with too many cookies, and no parameter is ignored.
"""

PARAMETER_MARKS_MAX: Final = 1024
"""Equals signs and question marks of a target. A parameter has one, and some values end in two.

Beyond: as with too many parameters.
"""

PARAMETER_ESCAPES_MAX: Final = 1024
"""Percent-encoded octets in the names of a target's parameters, which are decoded to find sessions
among them. `filter%5Bcolour%5D%5B%5D=` has four.

Beyond: as with too many parameters.
"""

SET_COOKIES_MAX: Final = 32
"""Set-Cookie lines of a response. A login sets half a dozen.

Beyond: the response is not stored, because it would have to be searched for each of the values.
"""

SET_COOKIE_ATTRIBUTES_MAX: Final = 32
"""Attributes of a Set-Cookie line. RFC 6265 and its successors know eight.

Beyond: it counts as deleting the cookie, which ends a session and with it what is stored for it.
"""

LIST_MEMBERS_MAX: Final = 128
"""Members of a field that is a list, all its lines together. More than a dozen are rare. Connection
names fields of the same head, whose number has the same limit.

Beyond, by field: Accept-Encoding accepts nothing but identity. Cache-Control forbids everything.
If-None-Match matches nothing. Forwarded separates responses by all its octets. Authorization is
assumed to authenticate the connection. With Connection, TE, Upgrade or Expect, a request is refused
(431) and a response is malformed (502).
"""

VARY_NAMES_MAX: Final = 32
"""Fields that a Vary names. Each is looked up in each request for that page.

Beyond: the response is not stored, as with `*`.
"""

FORWARDED_HOPS_MAX: Final = 32
"""Addresses of X-Forwarded-For that are looked at, from its end. Each takes ten microseconds.

Beyond, if all of these are trusted proxies: the last one looked at is the client.
"""

CODINGS_MAX: Final = 8
"""Content codings of one response, applied one after the other. One is usual.

Beyond: the response is not stored.
"""

CHUNK_EXTENSIONS_BYTES_MAX: Final = 2048
"""Octets of chunk extensions, beyond the number of octets of data in the same chunks. Extensions in
practice (a signature) come with kilobytes of data.

Beyond: the body is malformed. RFC 9112 section 7.1.1 asks for such a limit.
"""

TRAILER_FIELDS_MAX: Final = 64
"""Fields of a trailer section. It carries a checksum or a status.

Beyond: the body is malformed.
"""
