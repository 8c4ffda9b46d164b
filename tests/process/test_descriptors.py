"""Descriptors that the system grants, and what they allow."""

import resource
import sys

import pytest

from retter.process.descriptors import (
    DESCRIPTORS_KEPT,
    TooFewDescriptors,
    raise_descriptor_limit,
    require_descriptors,
)


def test_the_descriptor_limit_is_raised_to_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert raise_descriptor_limit() == 4096
    assert asked == [(4096, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (-1, -1))
    assert raise_descriptor_limit() == sys.maxsize

    def refuse(*_: object) -> None:
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 256


def test_a_start_with_too_few_descriptors_says_how_many_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (DESCRIPTORS_KEPT, DESCRIPTORS_KEPT))
    require_descriptors()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (12, 12))
    with pytest.raises(TooFewDescriptors, match="12 open files are too few, at least 32"):
        require_descriptors()
