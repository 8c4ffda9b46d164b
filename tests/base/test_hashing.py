"""BLAKE2b is that of the standard library, without what `hashlib` imports beside it."""

import hashlib
import subprocess
import sys

from retter.base.hashing import blake2b


def test_it_is_that_of_hashlib() -> None:
    options = {"key": b"secret", "digest_size": 16, "person": b"owner"}
    ours, theirs = blake2b(b"x", **options), hashlib.blake2b(b"x", **options)  # type: ignore[arg-type]
    assert ours.digest() == theirs.digest()


def test_its_import_reads_no_table_of_digests() -> None:
    code = "import retter.base.hashing, sys; print('hashlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
