"""The comparison of what stays in a full store: its traces, its bars and its page."""

import itertools
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.eviction import __main__ as command_line
from benchmarks.eviction import report, traces
from benchmarks.eviction.caches import LeastRecentlyUsed, Played, Store, best, play
from benchmarks.eviction.traces import SCENARIOS, Request, Scenario

SCENARIO = Scenario("zipf", "some visitors", 40, lambda seed, held: traces.zipf(1.0, seed, held))


def row(store: float, lru: float, kept: float = 1.0, kept_min: float | None = None) -> report.Row:
    scenario = Scenario("a", "b", 1, traces.loop, kept_min)
    return report.Row(scenario, Played(store, kept), Played(lru, 0.5), 1.0)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_trace_is_the_same_for_the_same_seed(scenario: Scenario) -> None:
    first, again, other = (
        list(itertools.islice(scenario.make(seed, 50), 3000)) for seed in (1, 1, 2)
    )
    assert first == again
    assert (first == other) is (scenario.name == "loop")


def test_visitors_ask_for_the_same_pages_beside_a_crawler_that_never_does() -> None:
    trace = list(itertools.islice(traces.crawl(1, 100), 60_000))
    visited = Counter(request.page for request in trace if request.is_visitors)
    crawled = Counter(request.page for request in trace if not request.is_visitors)
    assert len(visited) == traces.VISITED_PAGES
    assert visited[0] > 50 * visited[400] > 0
    assert set(crawled.values()) == {1}
    assert not visited.keys() & crawled.keys()


@pytest.mark.parametrize("cache", [Store, LeastRecentlyUsed])
def test_a_cache_holds_so_many_pages(cache: type[Store] | type[LeastRecentlyUsed]) -> None:
    kept = cache(40)
    assert not any(kept.ask(page) for page in range(100))
    assert sum(kept.holds(page) for page in range(100)) == 40
    assert kept.ask(99)


def test_the_best_is_never_behind() -> None:
    trace = list(SCENARIO.make(3, 40))
    assert best(trace, 40) > play(trace, Store(40)).hits
    assert best([Request(page) for page in (1, 2, 3, 1, 2, 3, 1, 2, 1, 2)], 2) == 6 / 8


def test_a_small_crawl_meets_the_bars() -> None:
    """Two minutes of it, and a store of a sixth: the whole takes a minute."""
    trace = list(itertools.islice(traces.crawl(1, 0), 64 * 300 + 11 * 64 * 120))
    store = play(trace, Store(800))
    assert store.kept >= 0.99
    assert store.hits > play(trace, LeastRecentlyUsed(800)).hits + 0.2


def test_what_misses_its_bar() -> None:
    assert report.missed([row(0.5, 0.5), row(0.6, 0.5)]) == []
    assert report.missed([row(0.4, 0.5)]) == ["a"]
    assert report.missed([row(0.6, 0.5, kept=0.98, kept_min=0.99)]) == ["a"]
    assert report.worst(SCENARIO, [row(0.6, 0.5), row(0.6, 0.55)]).lru.hits == 0.55
    crawls = [row(0.6, 0.5, kept=1.0, kept_min=0.99), row(0.9, 0.5, kept=0.9, kept_min=0.99)]
    assert report.worst(crawls[0].scenario, crawls).store.kept == 0.9


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "eviction.md"
    monkeypatch.setattr(command_line, "FILE", file)
    monkeypatch.setattr(command_line, "SCENARIOS", (SCENARIO,))
    assert command_line.main(["--seeds", "2", "--write"]) == 0
    assert "zipf" in capsys.readouterr().out
    assert "| zipf |" in file.read_text()
    assert "worst of 2 seeds" in file.read_text()
    with pytest.raises(SystemExit):
        command_line.main(["--only", "nothing"])
    monkeypatch.setattr(command_line, "measure", lambda *_: row(0.4, 0.5))
    assert command_line.main([]) == 1
    assert "a misses its bar" in capsys.readouterr().out


def test_the_page_that_is_kept_is_of_this_form() -> None:
    text = report.FILE.read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == "trace"
    assert rows[2:] == [scenario.name for scenario in SCENARIOS]
    assert "**missed**" not in text
