"""Drop stored responses for an operator: those of a URL, a prefix, a session, or all."""

from collections.abc import Callable
from functools import partial

from retter.admin.message import AdminError, Parameters, one
from retter.admin.url import head_bytes, split_url
from retter.base.errors import DownstreamError
from retter.http.memo import HeadMemo
from retter.proxy.request import ParsedRequest
from retter.proxy.services import Services
from retter.store.target import stored_url

_WHAT = ("url", "prefix", "session", "all")


def purge(services: Services, parameters: Parameters, done: Callable[[int, bool], None]) -> None:
    """Drop the responses that the parameters name, at once.

    Args:
        done: Called with the number of pages, which a thread may have to count first, and whether
            these are all; if not, it was at least that number. A page that was in memory and on
            disk, or in several workers, counts once, and so do all variants of it.

    Raises:
        AdminError: 400: the parameters are missing or ambiguous.
    """
    drop, invalidation = _order(services, parameters), services.store.invalidation
    keys: list[bytes] = []
    invalidation.dropped = keys
    try:
        if services.disk is not None:
            services.disk.count(keys, drop, done)
            return
        drop()
    finally:
        invalidation.dropped = None
    done(len(keys), True)


def _order(services: Services, parameters: Parameters) -> Callable[[], object]:
    """Return the call that drops the responses.

    Raises:
        AdminError: 400: the parameters are missing or ambiguous.
    """
    invalidation = services.store.invalidation
    given = [name for name in _WHAT if one(parameters, name)]
    if len(given) != 1:
        raise AdminError(400, f"give exactly one of {', '.join(_WHAT)}")
    text = one(parameters, given[0])
    if given == ["all"]:
        if text != "true":
            raise AdminError(400, "all must be true if it is given")
        return partial(invalidation.empty, services.loop.time())
    if given == ["session"]:
        return _order_for_session(services, text)
    _, host, target = split_url(text)
    if given == ["url"]:
        return partial(invalidation.purge, url=stored_url(host, target, services.owner_rules))
    host = b"" if services.owner_rules.ignore_host else host.lower()
    return partial(invalidation.purge, prefix=host + target)


def _order_for_session(services: Services, cookie: str) -> Callable[[], object]:
    """Return the call that drops the responses of the owner that this Cookie field identifies."""
    if "=" not in cookie:
        raise AdminError(400, "write a session as its cookie NAME=VALUE: PHPSESSID=...")
    memo: HeadMemo[ParsedRequest] = HeadMemo(0)  # not the proxy's: it is for requests of clients
    try:
        head = head_bytes("GET", b"localhost", b"/", [("Cookie", cookie)])
        identity = services.heads.parse(head, False, memo).identity
    except DownstreamError as error:
        raise AdminError(400, f"session is not a Cookie field: {error}") from None
    if not identity.owner:
        raise AdminError(400, "session must be a cookie that identifies somebody: PHPSESSID=...")
    return partial(
        services.store.invalidation.drop_owner,
        identity.owner,
        services.loop.time(),
        identity.marks,
    )
