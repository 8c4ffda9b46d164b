"""The dashboard for Grafana and the alert rules name what is really there."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from retter.breaker import Mode, State
from tests.real.conftest import need
from tests.support.admin import metrics_with_all_labels

CONTRIB = Path(__file__).parents[2] / "deploy"

# Words of PromQL, and names of labels where they stand alone.
NOT_METRICS = {
    "sum", "max", "by", "on", "unless", "rate", "increase", "histogram_quantile", "absent",
    "instance", "state", "source", "status", "reason", "part", "kind", "direction", "le", "cause",
    "and", "or", "changes", "avg_over_time",
}  # fmt: skip


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """Every name that /metrics has, with its labels."""
    return _names(metrics_with_all_labels())


def _names(metrics: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def panels() -> list[dict[str, Any]]:
    board = json.loads((CONTRIB / "grafana-dashboard.json").read_text())
    found: list[dict[str, Any]] = board["panels"]
    return found


def dashboard_expressions() -> Iterator[str]:
    board = json.loads((CONTRIB / "grafana-dashboard.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for annotation in board["annotations"]["list"]:
        yield annotation["expr"]


def rules() -> list[str]:
    return (CONTRIB / "alerts.yml").read_text().split("- alert: ")[1:]


def rule_expressions() -> Iterator[str]:
    for rule in rules():
        text = rule.partition("expr:")[2].partition("for:")[0]
        yield " ".join(
            text.replace("|", "", 1).split() if text.strip().startswith("|") else text.split()
        )


EXPRESSIONS = [*dashboard_expressions(), *rule_expressions()]


def test_there_are_some() -> None:
    assert len(EXPRESSIONS) > 30


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_an_expression_names_exists(exposed: dict[str, set[str]], expression: str) -> None:
    for name, labels in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        assert name in exposed, f"{name} is not at /metrics"
        used = set(re.findall(r"(\w+)(?:=~|!=|!~|=)\"", labels)) - {"instance"}
        assert used <= exposed[name], f"{name} has no label {used - exposed[name]}"
    bare = re.sub(r"\"[^\"]*\"|\{[^}]*\}|\[[^]]*\]|\$\w+", " ", expression)
    for word in re.findall(r"[a-z_][a-z_0-9]*", bare):
        assert word in NOT_METRICS or word in exposed, word
    assert expression.count("(") == expression.count(")")


def test_label_values_exist() -> None:
    states, modes = {state.value for state in State}, {mode.value for mode in Mode}
    for expression in EXPRESSIONS:
        for text in re.findall(r"retter_state\{[^}]*state=~?\"([^\"]*)\"", expression):
            assert set(text.split("|")) <= states
        for text in re.findall(r"mode!?=\"([^\"]*)\"", expression):
            assert text in modes


RULES_TEST = Path(__file__).parent / "alerts_test.yml"


@pytest.mark.release
def test_each_rule_fires_when_it_should_and_not_for_nothing(tmp_path: Path) -> None:
    """Prometheus' own unit tests of rules, with series in place of a night."""
    promtool = need("promtool", "prometheus")
    shutil.copy(CONTRIB / "alerts.yml", tmp_path)
    shutil.copy(RULES_TEST, tmp_path)
    done = subprocess.run(
        [promtool, "test", "rules", RULES_TEST.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = re.findall(r"alertname: (\w+)\n +exp_alerts:( \[\])?", RULES_TEST.read_text())
    names = {rule.partition("\n")[0] for rule in rules()}
    assert {name for name, quiet in cases if quiet} == names
    assert {name for name, quiet in cases if not quiet} == names


def test_rules_are_complete() -> None:
    for rule in rules():
        name = rule.partition("\n")[0]
        assert re.search(r"\n        for: \d+[mh]\n", rule), name
        assert re.search(r"severity: (critical|warning|info)\n", rule), name
        assert "summary: " in rule and "description: " in rule, name
        # A plain YAML scalar may not hold ": " or begin with a brace.
        for value in re.findall(r"(?:summary|description|expr): (?!\||\")(.*)", rule):
            assert ": " not in value and value[0] not in "{[&*!%@`", value


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert all(x < 24 for x, _ in cells)
        assert panel["description"].endswith("."), panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())
