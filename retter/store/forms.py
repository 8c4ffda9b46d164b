"""Stored responses in other codings, kept with the response that they were made from."""

from retter.store.accounting import Shelves
from retter.store.policy import Identity, key_parts
from retter.store.record import (
    FORM_OVERHEAD_BYTES,
    IDENTITY,
    Form,
    StoredResponse,
    bytes_referred,
)


class StoredForms:
    """Keeps the forms of stored responses, within the budget and their owners' shares."""

    __slots__ = ("_shelves",)

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves

    def coded_body(self, body: bytes, coding: bytes) -> bytes | None:
        """Return a stored body in another coding, if it was made before."""
        return self._shelves.coded(body, coding)

    def keep_coded(self, body: bytes, coding: bytes, coded: bytes) -> None:
        """Keep a stored body in another coding too, if it is still stored and there is room.

        `coded` is the body itself if the coding gains nothing: then it is not tried again.
        """
        self._shelves.add_coded(body, coding, coded)
        self._shelves.make_room(b"", spared_body=self._shelves.held_body(body))

    def attach(self, identity: Identity, stored: StoredResponse, coding: bytes, form: Form) -> None:
        """Keep a form with the response that it was made from, this owner's or the public one."""
        key = self._key_of(identity, stored)
        if key is None or (stored.forms is None and coding != IDENTITY):
            return
        new = _with_form(stored, coding, form)
        owner, _ = key_parts(key)
        if self._shelves.fits(owner, new.entry_bytes + bytes_referred(new)):
            self._shelves.replace(key, stored, new)
            self._shelves.make_room(owner, spared_key=key)

    def _key_of(self, identity: Identity, stored: StoredResponse) -> bytes | None:
        """Return the key under which this response is stored for this client; None: no more."""
        for key in (*[own for own, _ in identity.readable], identity.public_key):
            if key is not None and stored in self._shelves.slots.get(key, ()):
                return key
        return None

    def form_bytes_max(self, body: bytes) -> int:
        """Return the size of the largest form of a body that may be kept."""
        return self._shelves.coded_bytes_max(body)

    def keep_decoded(self, identity: Identity, stored: StoredResponse, form: Form) -> bool:
        """Keep an encoded response in its decoded form too.

        False if the budget or its owner's share has no room: then it is not tried again. Also True
        if the response is not stored any more.
        """
        key = self._key_of(identity, stored)
        if key is None:
            return True
        owner, _ = key_parts(key)
        new = _with_form(stored, IDENTITY, form)
        fits = self._shelves.fits(owner, new.entry_bytes + bytes_referred(new))
        self.keep_coded(stored.body, IDENTITY, form.body if fits else stored.body)
        if self.coded_body(stored.body, IDENTITY) == stored.body:
            return False
        self.attach(identity, stored, IDENTITY, form)
        return True


def _with_form(stored: StoredResponse, coding: bytes, form: Form) -> StoredResponse:
    forms = (*(stored.forms or ()), (coding, form))
    size = stored.entry_bytes + len(form.head) + FORM_OVERHEAD_BYTES
    return stored._replace(forms=forms, entry_bytes=size)
