"""The store near one worker: each look-up first applies what others have removed."""

import asyncio

from retter.base.shared_memory import bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.config.settings import Settings
from retter.proxy.proxy import Proxy
from retter.store.rules import StoreRules
from retter.store.shared_store import SharedStore
from tests.support.heads import response_head as response
from tests.support.stores import SECRET, put, request, who


class FakeNews:
    """News of others, which may come at any time."""

    def __init__(self) -> None:
        self.heads = memoryview(bytearray(16)).cast("q")
        self.seen = bytes(16)
        self.looks: list[float] = []

    def look(self, now: float) -> None:
        self.seen = self.heads.tobytes()
        self.looks.append(now)

    def comes(self) -> None:
        self.heads[1] += 8


def test_each_kind_of_look_up_looks_for_news_first() -> None:
    news = FakeNews()
    store = SharedStore(StoreRules(secret=SECRET), news)
    asked = request()
    assert put(store, asked, response())
    assert store.find(who(asked), asked, 10.5) is not None and news.looks == [], "there are none"
    news.comes()
    assert store.find(who(asked), asked, 11.0) is not None
    news.comes()
    assert store.lookup(who(asked), asked, 12.0) is not None
    news.comes()
    assert store.peek(who(asked), asked, 13.0)[0] is not None
    assert news.looks == [11.0, 12.0, 13.0]


def test_whole_proxies_of_two_workers_hear_of_each_other() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        shared = divided(memoryview(bytearray(bytes_for(2))), 2)
        first, second = [
            Proxy(
                Settings(upstream="127.0.0.1:1"), loop, place=WorkerPlace(index, 2, index, shared)
            )
            for index in (0, 1)
        ]
        asked = request()
        for proxy in (first, second):
            assert put(proxy.services.store, asked, response(), now=loop.time())
            assert proxy.services.store.find(who(asked), asked, loop.time()) is not None
        assert first.services.store.invalidation.purge(url=b"/", now=loop.time()) == 1
        assert second.services.store.find(who(asked), asked, loop.time()) is None
        for proxy in (first, second):
            proxy.close()

    asyncio.run(main())


def test_one_process_alone_has_a_plain_store() -> None:
    async def main() -> None:
        proxy = Proxy(Settings(upstream="127.0.0.1:1"), asyncio.get_running_loop())
        assert not isinstance(proxy.services.store, SharedStore)
        proxy.close()

    asyncio.run(main())
