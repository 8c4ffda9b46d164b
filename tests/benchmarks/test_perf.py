"""The benchmark's arithmetic, scripts, files and tables; no program is started."""

import math
import os
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.perf import __main__ as command_line
from benchmarks.perf import (
    compare,
    figures,
    load,
    machine,
    peers,
    plots,
    profiling,
    report,
    results,
)
from benchmarks.perf.bars import BARS, Verdict
from benchmarks.perf.figures import Window
from benchmarks.perf.results import Result, Series
from benchmarks.perf.scenarios import (
    PAGES,
    SCENARIOS,
    SMOKE,
    Heads,
    Mode,
    Scenario,
    chosen,
    head_template,
    mixed_heads,
    request_bytes,
    warming_requests,
)


def window(cpu_us: float, *, number: int = 0, requests: int = 100_000, errors: int = 0) -> Window:
    """Return a window of a second with a cost, two thirds of it in the kernel."""
    seconds = cpu_us * requests / 1e6
    return Window(
        round=number,
        cpu_user_s=seconds / 3,
        cpu_system_s=2 * seconds / 3,
        requests=requests,
        seconds=1.0,
        p50_us=round(10 * cpu_us),
        p99_us=round(30 * cpu_us),
        p999_us=2000,
        errors=errors,
        calibration_ms=9.0,
    )


def windows(*costs: float) -> list[Window]:
    """Return windows of these costs."""
    return [window(cost, number=number) for number, cost in enumerate(costs)]


def result(**costs: float) -> Result:
    """Return a result of forward-64 and forward-idle-10k with these costs by peer."""
    series = [
        Series(
            scenario,
            peer.replace("_", "-"),
            f"{peer} -c DIR/conf",
            windows(*(cost * factor for factor in (1.0, 1.01, 1.9, 1.02, 1.85))),
            rss_start_bytes=31_500_000,
            rss_after_bytes=33_000_000,
            idle_connections=9_000 if "idle" in scenario else 0,
            idle_bytes=2_400.0 if "idle" in scenario else 0,
            system_calls={"read": 2.0, "write": 2},
        )
        for scenario in ("forward-64", "forward-idle-10k")
        for peer, cost in costs.items()
    ]
    return Result(
        began="2025-11-03T10:00:00+00:00",
        commit="0123456789ab",
        flags=["run"],
        seconds=1,
        machine={"cpu": "Testing 3000"},
        versions={"nginx": "nginx/1.22.1"},
        skipped=["caddy: not installed"],
        series=series,
    )


# -- Figures


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (20, 5)])
def test_a_quarter_is_rounded_up(count: int, expected: int) -> None:
    """There is always at least one fastest window."""
    assert len(figures.fastest_quarter(windows(*range(1, count + 1)))) == expected


def test_clean_is_the_median_of_the_fastest_quarter() -> None:
    """The slow phases of the machine do not reach the clean figure; the range shows them."""
    found = figures.figures(windows(38, 20, 22, 40, 21, 39, 41, 37, 36))
    assert found.cpu_us == pytest.approx(21)
    assert found.user_us == pytest.approx(7)
    assert found.p50_us == 210 and found.p99_us == 630
    assert found.median_us == pytest.approx(37)
    assert found.least_us == pytest.approx(20)
    assert found.most_us == pytest.approx(41)
    assert found.requests_per_s == 100_000 and found.windows == 9
    assert found.busy == pytest.approx(2.1)


@given(costs=st.lists(st.floats(1, 1e4), min_size=1, max_size=30))
def test_clean_lies_between_the_best_and_the_median(costs: list[float]) -> None:
    """Whatever the windows, the clean cost is one that was seen, and not of the slower half."""
    found = figures.figures(windows(*costs))
    slack = 1e-9 * found.most_us
    assert found.least_us - slack <= found.cpu_us <= found.median_us + slack
    assert found.median_us <= found.most_us + slack


def test_a_window_without_answers_costs_endlessly_much() -> None:
    """It is never the fastest, and does not divide by zero."""
    dead = window(20, requests=0)
    assert dead.cpu_us == math.inf
    assert figures.fastest_quarter([dead, *windows(50)])[0].cpu_us == pytest.approx(50)
    assert replace(dead, seconds=0.0).requests_per_s == 0.0
    assert replace(dead, seconds=0.0).busy == 0.0


def test_figures_need_a_window_and_add_up_errors() -> None:
    """Errors of all windows count, not only those of the fastest."""
    with pytest.raises(ValueError, match="no window"):
        figures.figures([])
    assert figures.figures([window(10), window(90, errors=3)]).errors == 3


def test_ratio() -> None:
    """A base of nothing gives no ratio that could look good."""
    ours, theirs = figures.figures(windows(30)), figures.figures(windows(20))
    assert figures.ratio(ours, theirs, lambda one: one.cpu_us) == pytest.approx(1.5)
    assert figures.ratio(ours, theirs, lambda one: one.errors) == math.inf


# -- Comparing


def test_a_clear_change_is_told_and_noise_is_not() -> None:
    """A third cheaper is a change; the same figures in another order are none."""
    before = windows(30, 31, 30.5, 31.5, 30.2)
    assert figures.change(before, windows(20, 21, 20.5, 21.5, 20.2)).verdict == "cheaper"
    assert figures.change(before, windows(45, 46, 45.5, 46.5, 45.2)).verdict == "dearer"
    assert figures.change(before, before[::-1]).verdict == "noise"


def test_a_difference_below_the_clock_s_ticks_is_noise() -> None:
    """However steady the windows, one tick in a hundred cannot be seen."""
    assert figures.change(windows(*[30] * 5), windows(*[30.4] * 5)).verdict == "noise"


def test_few_windows_tell_nothing() -> None:
    """One window has no spread, which is not the same as being certain."""
    assert figures.change(windows(30), windows(*[60] * 5)).verdict == "too few windows"
    assert figures.change(windows(*[30] * 5), windows(*[60] * 5)).verdict == "dearer"


def test_a_change_of_the_whole_machine_is_divided_out() -> None:
    """All twice as dear: the ratio to nginx stays, and so does the verdict."""
    ours, nginx = windows(30, 31, 30.5, 30, 31), windows(20, 20.4, 20.2, 20, 20.4)
    slow_ours, slow_nginx = windows(60, 62, 61, 60, 62), windows(40, 40.8, 40.4, 40, 40.8)
    assert figures.change(ours, slow_ours).verdict == "dearer"
    found = figures.change(ours, slow_ours, nginx, slow_nginx)
    assert found.factor == pytest.approx(1) and found.verdict == "noise"


def test_the_same_files_give_the_same_verdict() -> None:
    """The draws are not random from run to run."""
    first, second = windows(30, 60, 31, 58, 33), windows(29, 57, 34, 61, 30)
    assert figures.change(first, second) == figures.change(first, second)


def test_comparison_of_two_results() -> None:
    """Peers are compared by their ratio to nginx, nginx by its own cost."""
    before, after = result(retter=40.0, nginx=20.0), result(retter=60.0, nginx=40.0)
    found = {
        (series.scenario, series.peer): (one, relative)
        for series, one, relative in compare.differences(before, after)
    }
    ours, relative = found["forward-64", "retter"]
    assert relative and ours.factor == pytest.approx(0.75)
    nginx, relative = found["forward-64", "nginx"]
    assert not relative and nginx.factor == pytest.approx(2)
    text = compare.comparison(before, after)
    assert re.search(r"forward-64 +retter +2\.0\d +1\.5\d +0\.75 ", text)
    assert "after to before: 1.00" in text


def test_series_that_only_one_result_has_are_left_out() -> None:
    """Nothing is compared with nothing."""
    assert compare.differences(result(retter=40.0), result(nginx=20.0)) == []


# -- Result files


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    """A result is read as it was written."""
    one = result(retter=25.0, nginx=20.0)
    file = tmp_path / "perf-1.json"
    file.write_text(results.dump(one))
    assert results.load(file) == one
    assert results.latest(tmp_path) == file


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0}', '{"format": 1, "series": [{}]}'])
def test_other_files_are_refused(text: str) -> None:
    """With a ValueError, whatever they hold."""
    with pytest.raises(ValueError, match=r"result"):
        results.parse(text)


def test_no_result(tmp_path: Path) -> None:
    """An empty folder has no newest result."""
    assert results.latest(tmp_path) is None
    with pytest.raises(ValueError, match="no result"):
        results.merged([])


def test_the_later_of_two_results_counts() -> None:
    """Merging replaces a series and keeps what only the earlier has."""
    found = results.merged([result(retter=40.0, haproxy=19.0), result(retter=25.0, nginx=20.0)])
    assert {series.peer for series in found.series} == {"retter", "haproxy", "nginx"}
    ours = found.find("forward-64", "retter")
    assert ours is not None and ours.figures().cpu_us == pytest.approx(25.125)
    assert found.skipped == ["caddy: not installed"]


# -- Scenarios and load


def test_scenarios_have_their_own_names() -> None:
    """And smoke and bars name only scenarios that exist."""
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert set(SMOKE) <= set(names)
    assert {name for bar in BARS for name in (bar.scenario, bar.of or bar.scenario)} <= set(names)
    assert all(scenario.name.startswith(scenario.mode.value) for scenario in SCENARIOS)
    assert all(scenario.page in PAGES for scenario in SCENARIOS)


def test_choice_of_scenarios() -> None:
    """By name, by --quick, by --smoke, and never silently fewer than were asked for."""
    assert [one.name for one in chosen("store-1, forward-1", quick=False, smoke=False)] == [
        "store-1",
        "forward-1",
    ]
    assert len(chosen(None, quick=False, smoke=False)) == len(SCENARIOS)
    assert all(one.main for one in chosen(None, quick=True, smoke=False))
    assert {one.name for one in chosen(None, quick=False, smoke=True)} == set(SMOKE)
    with pytest.raises(ValueError, match="no scenario nothing; there are: forward-64"):
        chosen("nothing", quick=False, smoke=False)


MIXED = [one for one in SCENARIOS if one.heads is Heads.MIXED]


@pytest.mark.parametrize(
    "scenario", [one for one in SCENARIOS if one not in MIXED], ids=lambda one: one.name
)
def test_heads_have_one_length_and_differ_as_they_should(scenario: Scenario) -> None:
    """A browser's head; never the same twice where it is to be unseen."""
    first, second = request_bytes(scenario, 1), request_bytes(scenario, 123_456_789)
    assert len(first) == len(second)
    assert (first == second) == (scenario.heads is Heads.REPEATED)
    head, _, body = first.partition(b"\r\n\r\n")
    assert 550 <= len(head) <= 850
    assert len(body) == scenario.body_bytes


@pytest.mark.parametrize("scenario", MIXED, ids=lambda one: one.name)
def test_mixed_heads_are_read_as_what_they_are(scenario: Scenario) -> None:
    """Forty kinds, all of them heads, none with a place that was not filled."""
    for number in range(80):
        head = request_bytes(scenario, number)
        assert b"{" not in head
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(head)
        assert isinstance(parser.next_event(), h11.Request)
    assert len({request_bytes(scenario, number) for number in range(80)}) >= 78
    warming = list(warming_requests(scenario))
    assert len(warming) == (1 if scenario.mode is Mode.FORWARD else 100 * 40)


def test_stored_pages_of_the_mix_are_everybodys() -> None:
    """No cookie says who it is: with the application dead nobody could get a page of their own."""
    heads, _ = mixed_heads(next(one for one in MIXED if one.mode is Mode.STORE))
    assert not any("PHPSESSID" in head for head in heads)
    heads, _ = mixed_heads(next(one for one in MIXED if one.mode is Mode.FORWARD))
    assert sum("PHPSESSID" in head for head in heads) == 36


def test_a_script_for_mixed_heads_is_lua() -> None:
    text = load.script(MIXED[0], 7)
    assert "math.randomseed(7)" in text
    assert text.count("function(page, referer, visitor)") == 40
    assert '"GET " .. page .. " HTTP/1.1' in text


def test_from_the_store_the_page_and_the_session_stay() -> None:
    """Otherwise it would be another page, which a dead application cannot give."""
    for scenario in SCENARIOS:
        if scenario in MIXED:
            continue
        if scenario.mode is Mode.STORE and scenario.heads is not Heads.REPEATED:
            line, *fields = head_template(scenario).split("\r\n")
            cookie = next(field for field in fields if field.startswith("Cookie: "))
            assert "{n}" not in line
            assert "{n}" not in cookie.split("; ")[0]


def test_a_script_repeats_the_head_in_lua() -> None:
    """Line ends and quotes are escaped, and the figures are asked for."""
    text = load.script(SCENARIOS[0], 1)
    literal = re.search(r'local whole = "((?:[^"\\]|\\.)*)"', text)
    assert literal is not None
    plain = literal[1].replace("\\r", "\r").replace("\\n", "\n")
    assert plain.encode() == request_bytes(SCENARIOS[0], 1)
    assert "latency:percentile(99.9)" in text


def test_a_script_for_unseen_heads_starts_where_it_is_told() -> None:
    """So that no window repeats the heads of another."""
    unseen = next(one for one in SCENARIOS if one.heads is Heads.UNSEEN)
    assert "local number = 5000001\n" in load.script(unseen, 5_000_001)


def test_each_connection_has_a_thread_where_heads_differ_by_connection() -> None:
    """A script is not told for which connection it makes a request."""
    one = next(each for each in SCENARIOS if each.heads is Heads.BY_CONNECTION)
    words = load.command(one, 80, 1, Path("load.lua"), 0)
    own = words[words.index("wrk") :]  # taskset has a -c too
    assert own[own.index("-t") + 1] == own[own.index("-c") + 1] == "64"


def test_figures_of_wrk() -> None:
    """Times in seconds, errors together and by name."""
    found = load.read_figures(
        'noise\nFIGURES {"requests":5000,"us":1000100,"bytes":900,"p50":90,"p99":200,"p999":300,'
        '"connect":0,"read":2,"write":0,"status":1,"timeout":0}\n'
    )
    assert found.requests == 5000 and found.seconds == pytest.approx(1.0001)
    assert (found.errors, found.trouble) == (3, "2 read, 1 status")
    with pytest.raises(load.LoadFailed, match="unable to connect"):
        load.read_figures("unable to connect")


def test_counts_of_strace() -> None:
    """With and without an error column; the total is no system call."""
    found = machine.read_strace(
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 61.54    0.104857           1    104857           write\n"
        " 38.46    0.052000           2     26000      1200 read\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.156857           1    130857      1200 total\n"
    )
    assert found == {"write": 104857, "read": 26000}


def test_this_process_is_in_its_own_tree() -> None:
    """And has used CPU time and memory."""
    pids = machine.tree(os.getpid())
    assert os.getpid() in pids
    assert machine.rss_bytes(pids) > 1_000_000
    used = machine.cpu_time(pids)
    assert used.user_s + used.system_s > 0
    assert used.since(used) == machine.CpuTime(0, 0)


# -- Reports


def test_bars_are_judged() -> None:
    """Met, missed, not measured; compiled by its own limit, or by the same one."""
    by_about = {bar.about: bar for bar in BARS}
    repeated = by_about["forwarding, heads repeat: CPU to nginx"]
    assert repeated.verdict(result(retter=19.0, nginx=20.0)) is Verdict.MET
    assert repeated.verdict(result(retter=23.0, nginx=20.0)) is Verdict.MET
    assert repeated.verdict(result(retter=30.0, nginx=20.0)) is Verdict.MISSED
    assert repeated.verdict(result(retter=30.0)) is Verdict.UNKNOWN
    assert repeated.verdict(result(nginx=30.0)) is Verdict.UNKNOWN
    assert repeated.compiled_verdict(result(retter_compiled=23.0, nginx=20.0)) is Verdict.MISSED
    assert repeated.compiled_verdict(result(retter_compiled=19.0, nginx=20.0)) is Verdict.MET
    assert repeated.compiled_verdict(result(retter=19.0, nginx=20.0)) is Verdict.UNKNOWN
    latency = by_about["64 connections: p99 to nginx"]
    assert latency.compiled is None
    assert latency.compiled_verdict(result(retter_compiled=23.0, nginx=20.0)) is Verdict.MET
    memory = by_about["resident memory after the start"]
    assert memory.value(result(retter=30.0)) == pytest.approx(31.5)
    idle = by_about["memory for each idle connection at 10,000"]
    assert idle.verdict(result(retter=30.0)) is Verdict.MISSED


def test_a_table_for_the_terminal() -> None:
    """Columns stand below each other; the ratio is to nginx."""
    text = report.table(result(retter=30.0, nginx=20.0), "forward-64")
    title, head, ours, nginx, *_ = text.splitlines()
    assert title == "forward-64: the same head each time"
    assert len(head) == len(ours) == len(nginx)
    assert re.search(r"retter +30\.\d +1\.50 ", ours)
    assert " 1.00 " in nginx


def test_without_nginx_there_is_no_ratio() -> None:
    """A dash, not a wrong number."""
    assert report.row(result(retter=30.0).series[0], None)[2] == "-"


def test_the_rows_of_the_store_on_disk_stand_in_the_readme(tmp_path: Path) -> None:
    """Whether the page or the README is written last; and once."""
    page = "# Title\n\nMeasured so.\nOn this.\n\n| what | bar |\n| --- | --- |\n| kill | 0 |\n"
    (tmp_path / report.LASTING_PAGE).write_text(page)
    report.write(result(retter=30.0, nginx=20.0), tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.count("| kill | 0 |") == text.count(report.LASTING_HEADING) == 1
    assert "Measured so.\nOn this.\n" in text
    assert report.with_lasting(text, page) == text
    later = report.with_lasting(text, page.replace("| 0 |", "| 1 |"))
    assert "| kill | 1 |" in later and "| kill | 0 |" not in later
    without = report.with_lasting(text, "")
    assert report.LASTING_HEADING not in without
    assert report.with_lasting(without, page) == text


def test_the_readme_and_its_plots(tmp_path: Path) -> None:
    """Tables are whole, plots are linked and well-formed."""
    one = result(retter=30.0, nginx=20.0, naive_h11=200.0)
    paths = report.write(one, tmp_path)
    assert [path.name for path in paths] == ["cpu-forward.svg", "README.md"]
    text = (tmp_path / "README.md").read_text()
    assert "![cpu-forward.svg](cpu-forward.svg)" in text
    assert "**missed**" in text and "caddy: not installed" in text and "Testing 3000" in text
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 5
    for each in tables:
        assert len({line.count("|") for line in each.splitlines()}) == 1
    ElementTree.fromstring((tmp_path / "cpu-forward.svg").read_text())


def test_a_long_bar_is_cut_and_names_are_escaped() -> None:
    """One slow peer does not flatten all others."""
    lengths = [plots.Length("retter", 1.0, "1.0"), plots.Length("<slow>", 100.0, "100")]
    text = plots.chart("a & b", [plots.Group("group", 1.0, lengths)])
    ElementTree.fromstring(text)
    assert "&lt;slow&gt;" in text and "a &amp; b" in text and "⋯ 100" in text
    assert re.search(r'width="110\.0"[^>]*fill="#c2410c"', text)


def test_what_requests_leave_allocated() -> None:
    """The growth between two readings, for each request, the most first."""
    before = {"blocks": 1000, "collections": [10, 1, 0], "collection_ms": 1.0, "objects": 50,
              "held_bytes": {"a.py:1": 100, "b.py:2": 400}}  # fmt: skip
    after = {"blocks": 1500, "collections": [20, 2, 0], "collection_ms": 1.5, "objects": 60,
             "held_bytes": {"a.py:1": 300, "b.py:2": 100, "c.py:3": 1000}}  # fmt: skip
    left = profiling.left_by(1000, before, after)
    assert left.blocks == pytest.approx(0.5)
    assert left.collections == (10.0, 1.0, 0.0)
    assert left.lines == (("c.py:3", 1.0), ("a.py:1", 0.2))
    text = profiling.describe(SCENARIOS[0], left, left)
    assert "+0.5000 memory blocks" in text and "1.00 B  c.py:3" in text


# -- The command line


def test_burners_end_with_the_run() -> None:
    with machine.burners(2) as pids:
        assert all(Path(f"/proc/{pid}").exists() for pid in pids) and len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_smoke_fails_on_errors_only() -> None:
    """A slow answer is well, a wrong one is not, a peer that is not there is."""
    slow = result(retter=5000.0)
    assert command_line.judge(slow) == 0
    slow.series[0].windows.append(window(20, errors=1))
    assert command_line.judge(slow) == 1
    broken = result(retter=20.0)
    broken.skipped.append("forward-64 retter: retter did not start: no")
    assert command_line.judge(broken) == 1


@pytest.mark.parametrize("words", [["run", "--peers", "nobody"], ["run", "--only", "nothing"]])
def test_unknown_names_are_named(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and what there is instead."""
    monkeypatch.setattr("sys.argv", ["benchmark", *words])
    monkeypatch.setattr(command_line, "NEEDED", ())
    assert command_line.main() == 2
    assert "there are: " in capsys.readouterr().err


def test_without_wrk_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The missing program is named."""
    monkeypatch.setattr("sys.argv", ["benchmark", "run"])
    monkeypatch.setattr(command_line, "NEEDED", ("no-such-program",))
    assert command_line.main() == 2
    assert "no-such-program" in capsys.readouterr().err


def test_who_is_watched_is_measured_beside_who_is_not(tmp_path: Path) -> None:
    (scenario,) = chosen("forward-admin", quick=False, smoke=False)
    (other,) = chosen("forward-64", quick=False, smoke=False)
    site = peers.Site(1, 2, tmp_path, scenario, 3, 1000)
    commands = {
        peer.name: list(peer.command(site)) for peer in peers.PEERS if peer.serves(scenario)
    }
    where = {name: command[command.index("--admin") + 1] for name, command in commands.items()}
    assert where == {"retter": "127.0.0.1:3", "retter-unwatched": "off"}
    assert "retter-unwatched" not in {peer.name for peer in peers.PEERS if peer.serves(other)}
    assert "off" in peers.Retter().command(replace(site, scenario=other))
