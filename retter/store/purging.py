"""The keys that an operator's purge matches."""

from collections.abc import Iterable

from retter.store.policy import key_parts, url_at


def matching(
    keys: Iterable[bytes], url: bytes | None, prefix: bytes | None, owner: bytes | None
) -> list[bytes]:
    """Return the keys that match all given conditions; without conditions, all keys.

    Args:
        url: Host and target, or a target alone, which matches every host.
        prefix: The beginning of a URL, in the same form.
        owner: b"" is everyone.
    """
    selected = list(keys)
    if url is not None:
        selected = [key for key in selected if key.endswith(url)]  # a cheap first selection
    if not (url is prefix is owner is None):
        selected = [key for key in selected if matches(key, url, prefix, owner)]
    return selected


def matches(key: bytes, url: bytes | None, prefix: bytes | None, owner: bytes | None) -> bool:
    """Return whether one key matches."""
    at = url_at(key)
    if owner is not None and key_parts(key)[0] != owner:
        return False
    if (url or prefix or b"").startswith(b"/"):
        at = key.find(b"/", at)
    if prefix is not None and not key.startswith(prefix, at):
        return False
    return url is None or key[at:] == url
