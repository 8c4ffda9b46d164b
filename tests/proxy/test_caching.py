"""RFC 9111's rules, one by one, in both uses of the store."""

import pytest

from tests.conformance.caching import RULES, WAYS, Rule, carry_out


def test_every_rule_has_a_name_of_its_own() -> None:
    names = [(rule.section, rule.says) for rule in RULES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("rule", RULES, ids=[f"{rule.section} {rule.says}" for rule in RULES])
def test_a_rule(rule: Rule) -> None:
    for way in WAYS:
        assert not carry_out(rule, way), way
