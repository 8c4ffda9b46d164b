"""Names and encryption of what boxes share, all from one secret.

The server sees neither URLs nor cookies nor pages: a name is a keyed hash, and a value is encrypted
and authenticated. The keystream is SHAKE-256 (FIPS 202) over a key, a random nonce and the place in
the value. The tag is a keyed BLAKE2b (RFC 7693) over the name, the nonce and the encrypted octets.
Both are in the standard library. Someone who can write to the server can remove a value or bring
back an old one, but can neither make a value nor move one to another name.
"""

import os
from hashlib import blake2b, shake_256
from typing import Final

from retter.store.packing import FORMAT_VERSION, HASH_BYTES
from retter.store.policy import key_parts

TAG_BYTES: Final = 16
NONCE_BYTES: Final = 16
SEAL_BYTES: Final = TAG_BYTES + NONCE_BYTES

# A shorter secret could be guessed. 32 hexadecimal digits are 16 random octets.
SECRET_TEXT_BYTES_MIN: Final = 32

_KEY_BYTES: Final = 32

# Octets that are encrypted in one step. The event loop waits for a step: 8 MiB in one take 0.1 s.
STEP_BYTES: Final = 64 * 1024


class Keys:
    """Keys that are derived from the secret of all boxes.

    Attributes:
        owner: Key for the hashes of owners and of session marks.
        public: Key for the hashes of fields that Vary names.
        tickets: Key for the tickets of waiting visitors.
        prefix: Of all names at the server. It has a hash tag, so that a cluster keeps them
            together.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_TEXT_BYTES_MIN:
            raise ValueError(f"a secret has at least {SECRET_TEXT_BYTES_MIN} octets")
        # With the version of the hashes (packing.py): boxes of two versions could not drop each
        # other's pages at a logout, so they have no key and no name in common.
        salt = b"%d" % FORMAT_VERSION
        self._root = blake2b(secret, person=b"retter-shared", salt=salt).digest()
        self.owner = self._key(b"owner")
        self.public = self._key(b"public")
        self.tickets = self._key(b"tickets")
        self.bodies = self._key(b"bodies")
        self._cipher = self._key(b"cipher")
        self._tags = self._key(b"tags")
        self._names = self._entries = self._key(b"names")
        site = blake2b(b"site", key=self._root, digest_size=8).hexdigest()
        self.prefix = f"retter:1:{{{site}}}:".encode()

    def _key(self, use: bytes) -> bytes:
        return blake2b(use, key=self._root, digest_size=_KEY_BYTES).digest()

    def follow(self, rules: bytes) -> None:
        """Use other names than boxes whose rules identify requests differently.

        Args:
            rules: Text that is different for different rules.
        """
        self._entries = blake2b(rules, key=self._names, digest_size=_KEY_BYTES).digest()

    # -- names

    def entry(self, key: bytes) -> bytes:
        """Return the name of the responses under a store key."""
        return self._name(b"e:", key, self._entries)

    def body(self, name: bytes) -> bytes:
        """Return the name of a body, for its hash."""
        return self.prefix + b"b:" + name.hex().encode()

    def dropped(self, what: bytes) -> bytes:
        """Return the name of the note that a key, an owner or a session was dropped."""
        return self._name(b"d:", what, self._names)

    def superseded(self, key: bytes) -> bytes:
        """Return the name of the note that the responses under a key are superseded."""
        return self._name(b"s:", key, self._names)

    def _name(self, kind: bytes, what: bytes, key: bytes) -> bytes:
        digest = blake2b(what, key=key, digest_size=HASH_BYTES, person=kind)
        return self.prefix + kind + digest.hexdigest().encode()

    @staticmethod
    def owner_of(key: bytes) -> bytes:
        """Return the owner of a store key; empty for everyone's."""
        return key_parts(key)[0]

    # -- values

    def seal(self, name: bytes, data: bytes) -> bytes:
        """Return the encrypted value to store under a name."""
        nonce = os.urandom(NONCE_BYTES)
        hidden = self._crypt(nonce, data)
        return self._tag(name, nonce, hidden) + nonce + hidden

    def opened(self, name: bytes, value: bytes) -> bytes | None:
        """Decrypt the value of a name; None if it was not made with this secret."""
        tag, nonce = value[:TAG_BYTES], value[TAG_BYTES:SEAL_BYTES]
        hidden = value[SEAL_BYTES:]
        if len(nonce) < NONCE_BYTES or tag != self._tag(name, nonce, hidden):
            return None
        return self._crypt(nonce, hidden)

    def _tag(self, name: bytes, nonce: bytes, hidden: bytes) -> bytes:
        hasher = blake2b(key=self._tags, digest_size=TAG_BYTES)
        hasher.update(len(name).to_bytes(2, "big") + name + nonce)
        hasher.update(hidden)
        return hasher.digest()

    def _crypt(self, nonce: bytes, data: bytes) -> bytes:
        steps: list[bytes] = []
        for at in range(0, len(data), STEP_BYTES):
            part = data[at : at + STEP_BYTES]
            stream = shake_256(self._cipher + nonce + at.to_bytes(8, "big")).digest(len(part))
            number = int.from_bytes(part, "little") ^ int.from_bytes(stream, "little")
            steps.append(number.to_bytes(len(part), "little"))
        return b"".join(steps)
