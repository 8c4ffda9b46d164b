"""No descriptor is left, as far as modules are concerned that were not needed before."""

import errno
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest


class _Unreadable:
    """Finds nothing but modules that cannot be read."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in self._names:
            raise OSError(errno.EMFILE, "Too many open files", name)
        return None


def without_descriptors(patch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these modules be imported no more."""
    for name in names:
        patch.delitem(sys.modules, name, raising=False)
    patch.setattr(sys, "meta_path", [_Unreadable(names), *sys.meta_path])
