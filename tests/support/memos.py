"""The memos of heads, forms, cookies and targets as a test wants them, in a proxy of any kind."""

from typing import Any

from retter.http.memo import SEEN_MAX
from retter.http.templates import FormMemo
from retter.proxy.proxy import Proxy

# off    every head goes through h11, each time
# full   so small that each new head pushes out the one before
# eager  a head is known from its first time on
# as is  as RETTER runs
WAYS = ("off", "full", "eager", "as is")

_FULL_BYTES_MAX = 4000


class _Same(int):
    """A number that no other differs from."""

    __hash__ = int.__hash__

    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False


def everything_seen() -> Any:
    """Return the table of a memo to which every key has been offered before."""
    return [_Same()] * SEEN_MAX


class _Few(dict[Any, Any]):
    """A dictionary that holds so many, and forgets all for one more."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self) >= self._most:
            self.clear()
        if self._most:
            super().__setitem__(key, value)


def set_memos(proxy: Proxy, way: str) -> None:
    """Change the memos of a proxy that has not parsed anything yet."""
    assert way in WAYS
    if way == "as is":
        return
    heads = proxy.services.heads
    parsers: list[Any] = [*heads.request_parsers.values(), heads.response_parser]
    memos: list[Any] = [
        *heads.request_memos.values(), heads.response_memo, heads._rules.cookie_owners,
    ]  # fmt: skip
    for memo in memos:
        if way != "off":
            memo._seen = everything_seen()
        if way != "eager":
            memo._bytes_max = 0 if way == "off" else _FULL_BYTES_MAX
    for parser in parsers:
        if way == "off":
            parser._forms = None
        elif way == "full":
            parser._forms = FormMemo(_FULL_BYTES_MAX)
        elif parser._forms is not None:
            parser._forms._seen = everything_seen()
    targets: Any = heads._targets
    if way != "eager":
        targets._known = _Few(0 if way == "off" else 1)
        targets._shapes = _Few(0 if way == "off" else 1)
    if way != "off":
        targets._latest = [_Same()] * len(targets._latest)
