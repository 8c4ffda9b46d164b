"""Dropping stored responses at an operator's word: of a URL, a prefix, a session, or all."""

from typing import TYPE_CHECKING

from retter.admin.message import AdminError, Parameters, one
from retter.admin.url import head_bytes, split_url
from retter.base.errors import DownstreamError
from retter.http.memo import HeadMemo
from retter.store.policy import stored_url

if TYPE_CHECKING:
    from retter.proxy.proxy import ParsedRequest, Proxy

_WHAT = ("url", "prefix", "session", "all")


def purge(proxy: "Proxy", parameters: Parameters) -> int:
    """Drop what is asked for; return how many responses that were.

    Raises:
        AdminError: 400, it is not clear what is meant.
    """
    given = [name for name in _WHAT if one(parameters, name)]
    if len(given) != 1:
        raise AdminError(400, f"give exactly one of {', '.join(_WHAT)}")
    text = one(parameters, given[0])
    if given == ["all"]:
        if text != "true":
            raise AdminError(400, "all is true, or not given")
        return proxy.store.empty(proxy.loop.time())
    if given == ["session"]:
        return _purge_session(proxy, text)
    _, host, target = split_url(text)
    if given == ["url"]:
        return proxy.store.purge(url=stored_url(host, target, proxy.owner_rules))
    host = b"" if proxy.owner_rules.ignore_host else host.lower()
    return proxy.store.purge(prefix=host + target)


def _purge_session(proxy: "Proxy", cookie: str) -> int:
    """Drop what is stored for the owner that this Cookie field makes."""
    if "=" not in cookie:
        raise AdminError(400, "a session is written as its cookie: NAME=VALUE, as PHPSESSID=...")
    memo: HeadMemo[ParsedRequest] = HeadMemo(0)  # the real one is for what clients send
    try:
        head = head_bytes("GET", b"localhost", b"/", [("Cookie", cookie)])
        identity = proxy.parse(head, False, memo).identity
    except DownstreamError as error:
        raise AdminError(400, f"session is no Cookie field: {error}") from None
    if not identity.owner:
        raise AdminError(400, "session is a cookie that tells somebody apart, as PHPSESSID=...")
    return proxy.store.drop_owner(identity.owner, proxy.loop.time(), identity.marks)
