"""Removals of stored responses as octets, for a journal, a successor or other boxes."""

import json
from typing import Any

from retter.store.owner import OWNER_BYTES
from retter.store.write_behind import Purge, Removals


def packed_removals(removals: Removals) -> bytes:
    """Return removals as octets."""
    if len(removals.superseded) == 1 and removals.superseded_alone:
        (key,) = removals.superseded  # a form: the most frequent removal by far
        return b'{"superseded": ["%b"]}' % key.hex().encode()
    said: dict[str, Any] = {
        "owners": [one.hex() for one in removals.owners],
        "marks": list(removals.marks),
        "keys": [one.hex() for one in removals.keys],
        "superseded": [one.hex() for one in removals.superseded],
        "purges": [[_hex(one) for one in purge] for purge in removals.purges],
        "everything": removals.everything,
        "personal": removals.personal,
    }
    return json.dumps({name: value for name, value in said.items() if value}).encode()


def unpacked_removals(payload: bytes) -> Removals:
    """Return the packed removals; if the payload cannot be understood, everything is removed."""
    try:
        said = json.loads(payload)
        removals = Removals(
            bool(said.get("everything")),
            bool(said.get("personal")),
            {bytes.fromhex(one) for one in said.get("owners", ())},
            set(map(int, said.get("marks", ()))),
            {bytes.fromhex(one) for one in said.get("keys", ())},
            [_purge(one) for one in said.get("purges", ())],
            {bytes.fromhex(one) for one in said.get("superseded", ())},
        )
    except (ValueError, TypeError, AttributeError):
        return Removals(everything=True)  # its checksum is right, but its content is unknown
    if any(len(owner) != OWNER_BYTES for owner in removals.owners):
        return Removals(everything=True)
    return removals


def _purge(texts: list[str | None]) -> Purge:
    url, prefix, owner = [None if text is None else bytes.fromhex(text) for text in texts]
    return Purge(url, prefix, owner)


def _hex(text: bytes | None) -> str | None:
    return None if text is None else text.hex()
