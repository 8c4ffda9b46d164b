"""What is learnt of an answer beside giving it to its client: sessions, and what is stored.

An exchange tells its head as soon as that is there (`learn`), and the whole of it when it has
arrived (`keep`). What may be stored of it, and for whom, is decided in policy.py and personal.py.
"""

from collections.abc import Callable

from retter.coding import plain_body
from retter.message import RequestHead, ResponseHead
from retter.owner import OwnerRules
from retter.personal import gives_cookie, is_personal, sets_cookie
from retter.policy import Identity, ends_session, may_roll
from retter.setcookie import learn, marks_set
from retter.store import Clients, ResponseStore


class Keeper:
    """Keeps what the application's answers say.

    Args:
        forget: Called when what Cookie lines mean has changed: it is to be found out anew.
    """

    __slots__ = ("_forget", "_rules", "_store")

    def __init__(
        self, store: ResponseStore, rules: OwnerRules, forget: Callable[[], None]
    ) -> None:
        self._store = store
        self._rules = rules
        self._forget = forget
        store.lineages = rules.lineages

    def configure(self, rules: OwnerRules) -> None:
        """Do it by other rules from now on."""
        self._rules = rules

    def learn_cookies(
        self, identity: Identity, request: RequestHead, head: ResponseHead, now: float
    ) -> None:
        """Take an answer's Set-Cookie: sessions begin, and a login or logout ends the past."""
        rules = self._rules
        ended = ends_session(identity, request, head, rules)
        if ended:
            self._store.drop_owner(identity.owner, now, identity.marks + marks_set(head, rules))
        if learn(request, head, rules, now, may_roll=not ended and may_roll(identity)):
            self._forget()

    def keep(
        self,
        identity: Identity,
        request: RequestHead,
        head: ResponseHead,
        body: bytes,
        requested_at: float,
        now: float,
        clients: Clients,
    ) -> bool:
        """Store a whole answer that `storable` has allowed; whether that was done."""
        rules, incomplete = self._rules, False
        if head.set_cookies:
            if not identity.session and sets_cookie(head, rules):
                text = plain_body(body, head.combined(b"content-encoding"))
                if text is None or is_personal(request, head, text, rules):
                    return False
            incomplete = gives_cookie(request, head, rules)
        return self._store.put(
            identity, request, head, body, requested_at, now, incomplete, clients
        )
