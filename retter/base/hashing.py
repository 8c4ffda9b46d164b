"""BLAKE2b (RFC 7693) by itself.

`hashlib` takes it from the same module, but its import also reads OpenSSL's table of all digests,
which takes 0.65 MB of the 32 that an idle process may have.
"""

try:
    from _blake2 import blake2b
except ImportError:  # a Python that is not CPython
    from hashlib import blake2b

__all__ = ["blake2b"]
