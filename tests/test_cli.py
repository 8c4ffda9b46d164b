"""The command line as an operator sees it: exit codes, one-line errors, help, the table."""

import importlib
import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from retter import cli
from retter._version import VERSION
from retter.cli import main
from retter.config.load import load
from retter.config.settings import SETTINGS, Settings
from retter.options import help_text, parser, texts_of
from retter.telemetry.build import is_compiled

Install = Callable[[Callable[[Settings], int]], None]

SAID_VERSION = f"retter {VERSION}{', compiled' if is_compiled() else ''}\n"


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RETTER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of each server that was started, in place of servers."""
    settings: list[Settings] = []

    def run(given: Settings, _: object) -> int:
        settings.append(given)
        return 0

    install_server(monkeypatch, run)
    return settings


def install_server(monkeypatch: pytest.MonkeyPatch, run: Callable[..., int]) -> None:
    module = types.ModuleType("retter.process.program")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "retter.process.program", module)
    # A start configures the log of the process; another test shall find it as it was.
    monkeypatch.setattr(structlog, "configure", lambda **_: None)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the one line of standard error with which these arguments are refused."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("retter: ")
    assert err.count("\n") == 1
    return err.removeprefix("retter: ").rstrip("\n")


# Running


def test_the_two_flags_of_the_first_page_start_a_server(started: list[Settings]) -> None:
    assert main(["--listen", ":80", "--upstream", ":8080"]) == 0
    assert started == [Settings(listen=(":80",), upstream=":8080")]


def test_variables_and_a_file_start_a_server(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "site.toml"
    file.write_text('drain = "30s"\nlisten = ":81"\n')
    monkeypatch.setenv("RETTER_UPSTREAM", "app:1")
    assert main([f"--config={file}", "--listen", ":80", "--listen=unix:/run/r.sock"]) == 0
    assert started == [
        Settings(listen=(":80", "unix:/run/r.sock"), upstream="app:1", drain_s=30, config=str(file))
    ]


def test_switches_have_two_flags_and_the_last_one_counts(started: list[Settings]) -> None:
    common = ["--upstream", ":1"]
    assert main([*common, "--no-headers", "--ignore-query", "--no-anonymous-fallback"]) == 0
    assert main([*common, "--no-headers", "--headers", "--ignore-query", "--no-ignore-query"]) == 0
    first, second = started
    assert (first.headers, first.ignore_query, first.anonymous_fallback) == (False, True, False)
    assert (second.headers, second.ignore_query, second.anonymous_fallback) == (True, False, True)


VALUES = st.text(st.sampled_from("-=a1 :"), max_size=4)
FLAGS = st.sampled_from(
    ("--upstream", "--listen", "--config", "--headers", "--no-headers", "--ignore-query", "--up")
)
OTHERS = st.sampled_from(
    ("--version", "--help-all", "--check-config", "-h", "--", "-", "status", "--strict")
)


@given(st.lists(FLAGS | VALUES | OTHERS | st.builds("{}={}".format, FLAGS, VALUES), max_size=5))
@example(["--upstream=--"])
@example(["--upstream=--", "--listen=:80"])
def test_usual_arguments_mean_what_all_options_say(arguments: list[str]) -> None:
    usual = cli._usual(arguments)
    if usual is None:
        return
    options, unknown = parser().parse_known_args(arguments)
    assert not (unknown or options.help or options.help_all or options.version)
    assert not options.check_config
    assert list(usual.items()) == list(texts_of(options).items())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--upstream", ":1", "--no-headers"], {"upstream": [":1"], "headers": ["false"]}),
        (["--upstream=:1", "--upstream", ":2"], {"upstream": [":1", ":2"]}),
        (["--headers", "--upstream=-1"], {"upstream": ["-1"], "headers": ["true"]}),
        (["--upstream"], None),
        (["--upstream", "--headers"], None),
        (["--upstream="], None),
        (["--headers=true"], None),
        (["--version"], None),
        (["--upstr=:1"], None),
    ],
)
def test_what_is_usual(arguments: list[str], expected: dict[str, list[str]] | None) -> None:
    assert cli._usual(arguments) == expected


def test_a_dash_is_a_value(started: list[Settings]) -> None:
    assert main(["--upstream", ":1", "--access-log", "-"]) == 0
    assert started[0].access_log == "-"


def test_the_exit_code_is_that_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    install_server(monkeypatch, lambda *_: 1)
    assert main(["--upstream", ":1"]) == 1


def test_an_interrupt_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> int:
        raise KeyboardInterrupt

    install_server(monkeypatch, run)
    assert main(["--upstream", ":1"]) == 130


def test_arguments_default_to_those_of_the_process(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["retter", "--upstream", ":1"])
    assert main() == 0
    assert len(started) == 1


def test_an_error_page_that_can_be_read_is_no_error(
    started: list[Settings], tmp_path: Path
) -> None:
    page = tmp_path / "sorry.html"
    page.write_text("<h1>Sorry</h1>")
    assert main(["--upstream", ":1", "--error-page", str(page)]) == 0
    assert len(started) == 1


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "no application to protect: add --upstream, for example --upstream :8080 "
            "(or RETTER_UPSTREAM=:8080); 'retter demo' brings one to try",
        ),
        (["--drian", "3s"], "--drian: no such option; did you mean --drain?"),
        (["--check-config", "--drain=--"], "--drain: needs a value: '--' is none"),
        (["store", "list", "--older=--"], "--older: needs a value: '--' is none"),
        (
            ["--config", "/no\n\x1b[31mred"],
            "--config: /no\\n\\x1b[31mred: No such file or directory",
        ),
        (["--drian=3s"], "--drian: no such option; did you mean --drain?"),
        (["--no-header"], "--no-header: no such option; did you mean --no-headers?"),
        (["--versoin"], "--versoin: no such option; did you mean --version?"),
        (["--qqqqq"], "--qqqqq: no such option; see retter --help-all"),
        (["--up", ":1"], "--up: no such option"),
        (["-x"], "-x: no such option"),
        (["--bogus"], "--bogus: no such option; see retter --help-all"),
        (["--port", "80"], "--port: no such option; did you mean --listen?"),
        (["-v"], "-v: no such option; did you mean --log-level?"),
        (["help", "status"], "unexpected 'help'; did you mean retter status --help?"),
        (["help"], "unexpected 'help'; did you mean retter --help?"),
        ([":8080"], "unexpected ':8080': options start with --, as in --upstream :8080"),
        (["serve"], "unexpected 'serve': RETTER starts without a command: retter --listen :80"),
        (["check"], "unexpected 'check': retter --config FILE --check-config checks settings"),
        (["stop"], "unexpected 'stop': kill -TERM PID stops RETTER; retter status shows the PID"),
        (["nginx"], "unexpected 'nginx': options start with --"),
        (["version"], "unexpected 'version'; did you mean retter --version?"),
        (["statsu"], "unexpected 'statsu'; did you mean retter status?"),
        (["stored"], "unexpected 'stored'; did you mean retter store?"),
        (["--upstream"], "--upstream: needs a value: --upstream=VALUE"),
        (["--upstream", "--listen", ":80"], "--upstream: needs a value: --upstream=VALUE"),
        (["--no-headers=yes"], "--no-headers: takes no value"),
        (["--drain", "soon"], "--drain: 'soon' is not a duration; write 1.5s, 200ms, 2m, 24h or"),
        (
            ["--listen", ":80", "--listen", "x"],
            "--listen: 'x' has no port; write :80, 127.0.0.1:8089",
        ),
        (["--patience-min", "9s"], "--patience-min 9s may not be larger than --patience-max 5s"),
        (["--config", "/nowhere/x.toml"], "--config: /nowhere/x.toml: No such file or directory"),
        (
            ["--listen", ":8080", "--upstream", ":8080"],
            "--upstream :8080 is where RETTER itself is to listen (:8080): give the application's",
        ),
        (
            ["--listen", "unix:/run/a.sock", "--upstream", "unix:/run/a.sock"],
            "--upstream unix:/run/a.sock is where RETTER itself is to listen",
        ),
        (
            ["--listen", ":80", "--listen", "127.0.0.1:80", "--upstream", ":1"],
            "--listen: 127.0.0.1:80 is the same place as :80; give each address once",
        ),
        (
            ["--listen", ":80", "--admin", "127.0.0.1:80", "--upstream", ":1"],
            "--admin: 127.0.0.1:80 is the same place as :80; give each address once",
        ),
        (
            ["--admin", "127.0.0.1:9090", "--upstream", ":9090"],
            "--upstream :9090 is the address of the admin listener (127.0.0.1:9090): give the",
        ),
        (
            ["--upstream", ":1", "--error-page", "/nowhere/x"],
            "--error-page: /nowhere/x: No such file",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    started: list[Settings],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert complaint(capsys, *arguments).startswith(message)
    assert started == []


def test_a_setting_that_fails_at_the_start_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "no" / "log")
    base = ["--upstream", ":1", "--listen", "127.0.0.1:0"]
    assert complaint(capsys, *base, "--access-log", missing).startswith(
        f"--access-log: {missing}: No such file"
    )
    monkeypatch.setenv("RETTER_ACCESS_LOG", missing)
    assert complaint(capsys, *base).startswith(f"RETTER_ACCESS_LOG: {missing}: No such file")
    monkeypatch.delenv("RETTER_ACCESS_LOG")
    file = tmp_path / "retter.toml"
    file.write_text(f'access_log = "{missing}"\n')
    assert complaint(capsys, *base, "--config", str(file)).startswith(
        f"{file}: access_log: {missing}: No such file"
    )


def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETTER_STORE_MEMORY", "lots")
    assert complaint(capsys).startswith("RETTER_STORE_MEMORY: 'lots' is not a size; ")


# Commands


@pytest.mark.parametrize(
    ("word", "module"),
    [
        ("demo", "retter.demo.cli"),
        ("load", "retter.demo.load"),
    ],
)
def test_a_command_gets_the_rest_of_the_arguments(
    word: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def command(arguments: list[str]) -> int:
        calls.append(arguments)
        return 7

    fake = types.ModuleType(module)
    fake.main = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, fake)
    assert main([word, "--drain", "x"]) == 7
    assert calls == [["--drain", "x"]]


# Help, version, table


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == SAID_VERSION


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_goes_before_everything(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--drain", "nonsense", flag]) == 0
    assert capsys.readouterr().out == cli.BRIEF


def test_help_is_one_screen_that_names_every_command() -> None:
    lines = cli.BRIEF.splitlines()
    assert len(lines) <= 24 - 1, "with the prompt below it"
    assert max(len(line) for line in lines) <= 80
    for word in (*cli.COMMANDS, *cli.CONTROL_WORDS):
        assert re.search(rf"retter {word}\b", cli.BRIEF), word
    assert "retter --help-all" in cli.BRIEF


def test_all_options_have_a_help_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help-all"]) == 0
    assert capsys.readouterr().out == help_text()


def test_help_starts_with_the_one_line_that_matters_and_three_examples() -> None:
    text = help_text(96)
    assert text.startswith("usage: retter --listen ADDRESS --upstream ADDRESS [OPTION ...]\n")
    examples = text.split("examples:\n")[1].split("\n\n")[0]
    assert examples.count("  retter --") == 3
    assert "  retter --listen :80 --upstream :8080\n" in examples


def test_help_has_its_groups_in_order() -> None:
    titles = [
        "Information:",
        "Listening and life:",
        "The application:",
        "Client limits:",
        "The store:",
        "The circuit breaker:",
        "Trust and output:",
    ]
    lines = help_text(96).splitlines()
    positions = [lines.index(title) for title in titles]
    assert positions == sorted(positions)


def test_help_explains_each_setting_with_its_default() -> None:
    text = help_text(96)
    words = " ".join(text.split())
    for setting in SETTINGS:
        assert f"\n  {setting.flag}" in text
        assert setting.about in words
    for line in (
        "--drain TIME How long running requests may take to finish when RETTER is asked to stop, ",
        "Increase it if downloads are slow. (default 15s)",
        "--store-memory SIZE Memory for stored responses",
        "--loop auto|uvloop|asyncio auto uses",
        "--failure-ratio SHARE Share of failures",
        "(default 64MiB)",
        "RETTER_MAX_STALE=12h",
    ):
        assert line in words


def test_help_shows_only_the_flag_that_changes_a_switch() -> None:
    text = help_text(96)
    assert "--no-headers" in text
    assert "  --headers" not in text
    assert "--no-ignore-query" not in text


@pytest.mark.parametrize(("terminal", "widest"), [(200, 96), (96, 96), (80, 80), (20, 80)])
def test_help_fits(terminal: int, widest: int) -> None:
    assert max(len(line) for line in help_text(terminal).splitlines()) <= widest


@pytest.mark.parametrize("columns", [80, 90])
def test_help_follows_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert columns - 10 < max(len(line) for line in help_text().splitlines()) < columns


def test_the_table_shows_each_setting_with_its_origin(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    started: list[Settings],
) -> None:
    file = tmp_path / "site.toml"
    file.write_text("max-stale = 7200\n")
    monkeypatch.setenv("RETTER_STORE_MEMORY", "1g")
    monkeypatch.setenv("RETTER_SERVER_TIMEOUT_IDLE", "60 seconds")
    arguments = ["--check-config", "--config", str(file), "--upstream", ":1", "--no-headers"]
    assert main(arguments) == 0
    assert started == []
    out, err = capsys.readouterr()
    rows = [line.split(maxsplit=2) for line in out.splitlines()]
    assert rows[0] == ["SETTING", "FROM", "VALUE"]
    assert [row[0] for row in rows[1:]] == [setting.name for setting in SETTINGS]
    for row in (
        ["upstream", "--upstream", ":1"],
        ["headers", "--no-headers", "false"],
        ["store_memory", "RETTER_STORE_MEMORY", "1GiB"],
        ["keep_alive", "RETTER_SERVER_TIMEOUT_IDLE", "1m"],
        ["drain", "default", "15s"],
        ["access_log", "default", "-"],
    ):
        assert row in rows
    assert f"{file}: max_stale" not in out
    assert f"{file}: max-stale" in out
    assert err == (
        "retter: note: RETTER_SERVER_TIMEOUT_IDLE is deprecated: "
        "use --keep-alive or RETTER_KEEP_ALIVE.\n"
    )


def test_what_the_table_shows_may_be_given_again() -> None:
    effective = load({"upstream": [":1"], "trusted_proxies": ["10.0.0.0/8,unix:"]}, {})
    rows = [line.split(maxsplit=2) for line in cli.table(effective).splitlines()[1:]]
    again = {name: [value] for name, _, value in rows if value != "-"}
    assert load(again, {}).settings == effective.settings


def test_a_check_finds_what_a_start_would_find(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check-config"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("SETTING")
    assert err.startswith("retter: no application to protect")


# The process


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_module_is_the_program() -> None:
    command = [sys.executable, "-m", "retter", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, SAID_VERSION, "")


@pytest.mark.parametrize("package", ["h11", "structlog"])
def test_who_starts_it_before_installing_it_is_told_how(package: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
from retter.cli import main
sys.exit(main(["--upstream", ":1", "--listen", "127.0.0.1:0", "--admin", "off"]))
"""
    done = run_python(code)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"retter: the Python package {package} is missing: RETTER is not")
    assert "make run; or " in done.stderr and done.stderr.endswith(" -m pip install .\n")
    assert done.stderr.count("\n") == 1


def test_notices_are_logged_when_it_runs() -> None:
    code = """
import os, sys, types
server = types.ModuleType("retter.process.program")
server.run = lambda settings, reread: 0
sys.modules["retter.process.program"] = server
os.environ["RETTER_CACHE_TTL"] = "60"
from retter import cli
sys.exit(cli.main(["--upstream", ":1"]))
"""
    done = run_python(code)
    assert (done.returncode, done.stdout) == (0, "")
    assert '"notice": "RETTER_CACHE_TTL is deprecated: use --max-stale' in done.stderr
    assert '"level": "warning"' in done.stderr


def test_notices_are_logged_before_the_start(
    started: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETTER_CACHE_TTL", "60")
    with structlog.testing.capture_logs() as records:
        assert main(["--upstream", ":1"]) == 0
    assert [record["log_level"] for record in records] == ["warning"]
    assert str(records[0]["notice"]).startswith("RETTER_CACHE_TTL is deprecated")
    assert started[0].max_stale_s == 60.0


def test_hidden_modules_come_back() -> None:
    with cli._without("retter_no_such_module", "sys"):
        assert sys.modules["retter_no_such_module"] is None
        assert sys.modules["sys"] is sys
    assert "retter_no_such_module" not in sys.modules


# What a start would refuse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--access-log", "{}/none/a.log"],
            "--access-log: {}/none/a.log: No such file or directory",
        ),
        (["--access-log", "{}/file/a.log"], "--access-log: {}/file/a.log: Not a directory"),
        (["--access-log", "{}"], "--access-log: {}: Is a directory"),
        (["--store", "{}/file"], "--store: {}/file is not a folder"),
        (["--store", "{}/file/store"], "--store: {}/file/store: Not a directory"),
        (
            ["--workers", "4", "--store-memory", "1MiB"],
            "store_memory: too small for 4 workers; give at least 16MiB, or fewer --workers",
        ),
    ],
)
def test_a_check_says_what_the_start_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    arguments = [one.format(tmp_path) for one in arguments]
    where = ["--upstream", ":1", "--listen", "127.0.0.1:0", "--admin", "off"]
    said: list[str] = []
    for check in (["--check-config"], []):
        assert main([*where, *arguments, *check]) == 2
        said.append(capsys.readouterr().err)
    assert said == [f"retter: {message.format(tmp_path)}\n"] * 2


def test_a_check_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for log in (str(tmp_path / "a.log"), "-"):
        arguments = ["--access-log", log, "--store", str(tmp_path / "a" / "b"), "--workers", "2"]
        assert main(["--check-config", "--upstream", ":1", *arguments]) == 0
        assert capsys.readouterr().err == ""
    assert list(tmp_path.iterdir()) == []


# Secrets


@pytest.mark.parametrize("by_variable", [False, True])
def test_the_admin_token_is_never_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    token = "correct-horse-battery"
    arguments = ["--check-config", "--upstream", ":8080"]
    if by_variable:
        monkeypatch.setenv("RETTER_ADMIN_TOKEN", token)
    else:
        arguments += ["--admin-token", token]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert token not in out + err
    origin = "RETTER_ADMIN_TOKEN" if by_variable else "--admin-token"
    assert re.search(rf"^admin_token +{origin} +\(hidden\)$", out, re.MULTILINE)


def test_an_admin_listener_for_other_machines_needs_a_token(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = complaint(capsys, "--upstream", ":8080", "--admin", ":9090")
    assert (
        said
        == "--admin :9090 is open to other machines and therefore needs a token: --admin-token-file"
    )
    said = complaint(
        capsys, "--upstream", ":8080", "--admin-token", "x" * 16, "--admin-token-file", "t"
    )
    assert said.startswith("--admin-token (hidden) cannot be combined with --admin-token-file")
    said = complaint(capsys, "--upstream", ":8080", "--admin-token", "short")
    assert "short" not in said


def test_modules_that_stand_in_know_the_given_names_and_leave() -> None:
    with cli._standing_in(retter_no_such_module={"WORD": 1}, sys={}):
        assert importlib.import_module("retter_no_such_module").WORD == 1
        assert importlib.import_module("sys") is sys
    assert "retter_no_such_module" not in sys.modules
