"""docs/metrics.md, from what /metrics writes: every metric with its labels.

The admin listener of the tests answers, without a socket; a few requests bring the labels out.
"""

from typing import Final

HEAD: Final = """\
# Metrics

All that `GET /metrics` of the admin listener has, made from itself by `make reference`; with
`--store` there are also those of `retter_disk_*`, and with `--shared` those of `retter_shared_*`.
What to watch first, and how to set Prometheus up: [operating](operating.md#for-monitoring).

Each label has a handful of values that are known beforehand: never a path, a host or a client. A
counter begins at 0 with each start.

| metric | type | labels | |
|---|---|---|---|
"""


def metrics_page() -> str:
    """Return docs/metrics.md."""
    from prometheus_client.parser import text_string_to_metric_families

    from tests.support.admin import metrics_with_all_labels

    labels: dict[str, set[str]] = {}
    about: dict[str, tuple[str, str]] = {}
    for family in text_string_to_metric_families(metrics_with_all_labels()):
        about[family.name] = (family.type, family.documentation)
        names = labels.setdefault(family.name, set())
        for sample in family.samples:
            names |= set(sample.labels) - {"le"}
    return HEAD + "".join(
        [
            f"| `{_shown(name, kind)}` | {kind} | {_codes(labels[name])} | {text} |\n"
            for name, (kind, text) in sorted(about.items())
        ]
    )


def _shown(name: str, kind: str) -> str:
    # As it is written in a query.
    return name + {"counter": "_total", "info": "_info"}.get(kind, "")


def _codes(names: set[str]) -> str:
    return ", ".join([f"`{name}`" for name in sorted(names)])
