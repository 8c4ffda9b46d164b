"""What the tests of the store ask and answer, and whom for."""

from hypothesis import strategies as st

from retter.http.message import Fields, RequestHead, ResponseHead
from retter.store.owner import OwnerRules
from retter.store.policy import Identity, StorePolicy, identify
from retter.store.store import ResponseStore, StoredResponse, StoreRules
from tests.support.heads import request_head

SECRET = b"0123456789abcdef"
RULES = OwnerRules(secret=SECRET)
ALICE = (b"cookie", b"PHPSESSID=alice-0123456789abcdef")
BOB = (b"cookie", b"PHPSESSID=bob-0123456789abcdef")
BEARER = (b"authorization", b"Bearer x")


def request(
    *fields: tuple[bytes, bytes], target: bytes = b"/", method: bytes = b"GET"
) -> RequestHead:
    return request_head(*fields, target=target, method=method, host=b"a.b")


def who(asked: RequestHead) -> Identity:
    return identify(asked, RULES)


def make(policy: StorePolicy = StorePolicy.ALL, **limits: float) -> ResponseStore:
    return ResponseStore(StoreRules(secret=SECRET, policy=policy, **limits))  # type: ignore[arg-type]


def put(
    store: ResponseStore,
    asked: RequestHead,
    answered: ResponseHead,
    body: bytes = b"body",
    now: float = 10.0,
    requested_at: float | None = None,
) -> bool:
    asked_at = now if requested_at is None else requested_at
    return store.put(who(asked), asked, answered, body, asked_at, now)


def find(
    store: ResponseStore, asked: RequestHead, now: float = 11.0, *, superseded: bool = False
) -> StoredResponse | None:
    return store.lookup(who(asked), asked, now, superseded=superseded)


def body_for(
    store: ResponseStore, asked: RequestHead, now: float = 11.0, *, superseded: bool = False
) -> bytes | None:
    found = find(store, asked, now, superseded=superseded)
    return None if found is None else found.body


MODEL_MAX, MODEL_SHARE, MODEL_VARIANTS, MODEL_STALE = 9000, 0.5, 2, 40.0
VISITORS: dict[str, Fields] = {
    "anon": (),
    "alice": (ALICE,),
    "bob": (BOB,),
    "theme": ((b"cookie", b"theme=x"),),
    "api": (BEARER,),
}
visitors = st.sampled_from(sorted(VISITORS))
targets = st.sampled_from([b"/1", b"/2", b"/3", b"/4"])
accepts = st.sampled_from([b"a", b"b", b"c"])
bodies = st.sampled_from([b"", b"x", b"y" * 500, b"z" * 500, b"z" * 2500, b"w" * 5000])
