"""deploy/Dockerfile and deploy/compose.yaml name what is really there: files, options, settings.

No image is built here; that needs the network.
"""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from typing import Final

import pytest

from retter.config.load import load
from retter.config.settings import SETTINGS, Settings
from retter.config.units import is_loopback, parse_listen
from retter.control.commands import COMMANDS
from retter.demo.cli import parser as demo_parser
from tests.support.pages import PACKAGE, ROOT

VARIABLES: Final = {setting.variable for setting in SETTINGS}

# What the container and the Debian package install beside the needs of RETTER itself.
EXTRAS: Final = ("metrics", "compress", "store", "shared")

KNOWN: Final = {
    "ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "EXPOSE", "USER", "HEALTHCHECK", "ENTRYPOINT",
}  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile as (instruction, rest), with lines joined and comments gone."""
    lines = [
        line
        for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
        if not line.startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def only(name: str) -> str:
    [rest] = [rest for one, rest in instructions() if one == name]
    return rest


@pytest.fixture
def environment() -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(only("ENV")))


def test_every_instruction_is_known() -> None:
    assert {name for name, _ in instructions()} <= KNOWN


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    sources = [
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    ]
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert "retter" in sources
    for source in sources:
        assert (PACKAGE if source == "retter" else ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), source
    assert set(allowed) == set(sources)


def test_all_that_the_build_needs_is_copied() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    named = set(re.findall(r'"?(README\.md|LICENSE)"?', text))
    copied = " ".join(rest for name, rest in instructions() if name == "COPY").split()
    assert named <= set(copied)


def test_stages_are_copied_from_only_where_they_are() -> None:
    stages = set(re.findall(r"AS (\w+)", " ".join(rest for _, rest in instructions())))
    used = set(re.findall(r"--from=(\w+)", " ".join(rest for _, rest in instructions())))
    assert used == stages


def test_what_is_installed_is_pinned_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for extra in EXTRAS for one in extras[extra])]
    names = {re.split(r"[^\w-]", one)[0].replace("_", "-").lower() for one in wanted}
    text = (ROOT / "deploy" / "requirements.txt").read_text()
    pinned = re.findall(r"^([\w-]+)==\S+.*\\\n    --hash=sha256:", text, re.MULTILINE)
    assert names <= set(pinned), "run `make requirements`"
    assert len(pinned) == text.count("==")


def test_it_runs_as_nobody_in_particular() -> None:
    user, group = only("USER").split(":")  # numbers, so that Kubernetes' runAsNonRoot can see it
    assert int(user) >= 1000 and int(group) >= 1000
    assert instructions().index(("USER", only("USER"))) > len(instructions()) - 4


def test_the_variables_are_settings_that_go_together(environment: dict[str, str]) -> None:
    ours = {name: text for name, text in environment.items() if name.startswith("RETTER_")}
    assert set(ours) <= VARIABLES
    settings = load({}, {**ours, "RETTER_UPSTREAM": "app:8090"}).settings
    [listen] = settings.listen
    assert str(parse_listen(listen).port) == only("EXPOSE")
    assert parse_listen(listen).port >= 1024, "it has no privilege for lower ones"
    # A fixed address: with `auto` a busy port would turn it off, and the health check with it.
    assert is_loopback(parse_listen(settings.admin).host)


def test_program_and_health_check_are_signalled_and_started_without_a_shell() -> None:
    assert json.loads(only("ENTRYPOINT")) == ["retter"]
    options, _, command = only("HEALTHCHECK").partition(" CMD ")
    program, word = json.loads(command)
    assert program == "retter" and word in COMMANDS
    assert all(
        re.fullmatch(r"--(interval|timeout|start-period)=\d+s", one) for one in options.split()
    )


def test_compose_names_settings_and_grants_the_time_to_drain() -> None:
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    assert set(re.findall(r"RETTER_[A-Z_]+", text)) <= VARIABLES
    [grace_s] = re.findall(r"stop_grace_period: (\d+)s", text)
    settings = Settings(upstream="app:8090")
    assert int(grace_s) > settings.drain_s
    assert f':{only("EXPOSE")}"]' in text
    [upstream] = re.findall(r"RETTER_UPSTREAM: (\S+)", text)
    host, _, port = upstream.partition(":")
    assert f"\n  {host}:\n" in text
    [command] = re.findall(r"command: (\[.*\])", text)
    word, *arguments = json.loads(command)
    assert word == "demo"
    assert demo_parser().parse_args(arguments).listen.endswith(f":{port}")
