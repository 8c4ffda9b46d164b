"""README.md and docs/ are true: options, settings, files, links, words.

Their commands are not run here but for the cheap ones; the pages say which of the rest were run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import fastjsonschema
import pytest
import trustme

import retter
from docs.reference import PAGES
from retter import cli
from retter.base.reason import Reason
from retter.breaker import State
from retter.config.legacy import ALIASES
from retter.config.load import load
from retter.config.settings import SETTINGS
from retter.config.template import json_schema
from retter.control import commands, completion, config_command, store_command
from retter.demo.cli import parser as demo_parser
from retter.demo.load import parser as load_parser
from retter.options import texts_of
from tests.support.pages import PACKAGE, ROOT, blocks, command_lines

DOCS: Final = sorted(
    [
        *[ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY")],
        *(ROOT / "docs").glob("*.md"),
    ]
)
# Written by `make bench-report`, on the machine where it was measured.
MEASURED: Final = ROOT / "benchmarks/README.md"
each_page = pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)

# Options of other programs, where they stand outside of a line that begins with `retter`.
FOREIGN: Final = {
    "--all", "--build", "--cap-drop", "--config", "--deploy-hook", "--kill-whom", "--name", "--now",
    "--read-only", "--signal", "--stop-timeout", "--user", "--workers", "--bind", "--keep-alive",
    "--no-install-recommends", "--ablate", "--ablation", "--set", "--svg", "--table", "--adapter",
    "--first-seed", "--seeds", "--no-classic",
    "--quick", "--upgrade", "--away", "--only", "--peers",
    "--limit-request-line", "--raw", "--strict", "--wheel",
}  # fmt: skip


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings}


def options_added_by(add_options: Callable[[argparse.ArgumentParser], None]) -> set[str]:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return options_of(parser)


OURS: Final = {
    *(setting.flag_for(text) for setting in SETTINGS for text in ("true", "false")),
    "--help", "--help-all", "--version", "--check-config",
    *(name for word in commands.COMMANDS for name in options_of(commands.parser(word))),
    *options_of(demo_parser()), *options_of(load_parser()),
    *(name for _, _, add in store_command.ACTIONS.values() for name in options_added_by(add)),
}  # fmt: skip


LATER_PARSERS: Final = {
    "config": config_command.parser,
    "completion": completion.parser,
    "store": store_command.parser,
}


@pytest.mark.parametrize("path", PAGES)
def test_generated_pages_are_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text() == PAGES[path](), "run `make reference`"


def test_the_manual_has_every_option() -> None:
    text = (ROOT / "docs/man/retter.1").read_text().replace("\\-", "-")
    for setting in SETTINGS:
        assert f".TP\n\\fB{setting.flag}\\fR" in text
    for word in commands.COMMANDS:
        assert f".TP\n.B {word}\n" in text
    for action in store_command.ACTIONS:
        assert f".TP\n.B store {action}\n" in text


@pytest.mark.parametrize(
    "command", [["mandoc", "-T", "lint", "-W", "warning"], ["man", "--warnings", "-l"]],
    ids=["mandoc", "man"],
)  # fmt: skip
def test_the_manual_renders(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        [*command, str(ROOT / "docs/man/retter.1")],
        capture_output=True,
        text=True,
        check=False,
    )
    if command[0] == "man" and "not been installed" in done.stdout + done.stderr:
        pytest.skip("man is only a stand-in here")
    assert (done.returncode, done.stderr) == (0, "")
    assert command[0] == "mandoc" or "--upstream" in done.stdout
    assert command[0] == "man" or done.stdout == ""


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and others make them."""
    outside = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    }


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    for target in [one or other for one, other in targets]:
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists() or file == MEASURED, target
        if anchor:
            assert anchor in anchors(file), target


def test_every_page_can_be_reached_from_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name}" in index, page.name
    assert "](docs/README.md)" in (ROOT / "README.md").read_text()


def test_the_architecture_names_what_is_there() -> None:
    """Files and folders, and the functions in them."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    paths = set(re.findall(r"`([a-z_/]+(?:/|\.py|\.toml|\.md))`", text))
    assert len(paths) > 40
    bases = ROOT, PACKAGE.parent, PACKAGE, PACKAGE / "proxy"
    assert not [path for path in paths if not any((base / path).exists() for base in bases)]
    source = "".join([path.read_text() for path in PACKAGE.rglob("*.py")])
    functions = set(re.findall(r"`(?:Exchange\.)?(_?[a-z]+(?:_[a-z]+)+)`", text))
    assert len(functions) > 3
    assert not [name for name in functions if f"def {name}(" not in source and name != "drain_s"]


def test_the_changelog_is_by_release() -> None:
    """As keepachangelog.com has it: the newest first, dated, in sections of a known kind."""
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert first == "[Unreleased]"
    assert f"[{retter.__version__}]" in releases[0]
    assert all(re.fullmatch(r"\[[\w.]+\] - \d{4}-\d{2}-\d{2}", one) for one in releases)
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@each_page
def test_options_exist(page: Path) -> None:
    for name in set(re.findall(r"(?<![\w\-.])--[a-z][a-z\-]*[a-z]", page.read_text())):
        assert name in OURS | FOREIGN, name


@each_page
def test_variables_exist(page: Path) -> None:
    known = {one.variable for one in SETTINGS} | {alias.variable for alias in ALIASES}
    assert set(re.findall(r"\bRETTER_[A-Z_]+", page.read_text())) <= known


@each_page
def test_commands_are_understood(page: Path) -> None:
    for words in command_lines(page):
        word = words[0]
        if word == "demo":
            demo_parser().parse_args(words[1:])
        elif word == "load":
            load_parser().parse_args(words[1:])
        elif word in LATER_PARSERS:
            LATER_PARSERS[word]().parse_args(words[1:])
        elif word in commands.COMMANDS:
            commands.parser(word).parse_args(words[1:])
        else:
            given = texts_of(cli._parse(words))
            # The files that an example names are not here.
            load({name: texts for name, texts in given.items() if name != "config"}, {})


@each_page
def test_files_of_settings_are_understood(page: Path, tmp_path: Path) -> None:
    check_schema = fastjsonschema.compile(json_schema(), use_default=False)
    for number, (language, text) in enumerate(blocks(page)):
        if language == "toml":
            file = tmp_path / f"{number}.toml"
            file.write_text(text)
            assert load({"config": [str(file)]}, {}).settings.upstream
            check_schema(tomllib.loads(text))


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^    )make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets


def test_there_is_something_to_check() -> None:
    assert sum(len(list(command_lines(page))) for page in DOCS) >= 15
    assert sum(language == "toml" for page in DOCS for language, _ in blocks(page)) >= 3


def test_blocks_for_nginx_are_understood(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    authority = trustme.CA()
    certificate = authority.issue_cert("shop.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "shop.pem"))
    found = [text for page in DOCS for language, text in blocks(page) if language == "nginx"]
    assert len(found) == 2
    for number, text in enumerate(found):
        local = re.sub(r"/etc/ssl/shop\.(pem|key)", str(tmp_path / "shop.pem"), text)
        local = local.replace("include fastcgi_params;", "")
        file = tmp_path / f"{number}.conf"
        file.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {local} }}")
        done = subprocess.run(
            [nginx, "-t", "-e", "stderr", "-c", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_blocks_for_caddy_are_understood() -> None:
    if shutil.which("caddy") is None:
        pytest.skip("Caddy is not installed")
    [text] = [text for page in DOCS for language, text in blocks(page) if language == "caddyfile"]
    done = subprocess.run(
        ["caddy", "adapt", "--adapter", "caddyfile", "--config", "/dev/stdin"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "127.0.0.1:8089" in done.stdout, done.stderr


def test_troubleshooting_has_every_reason() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    words = re.findall(r"`([a-z-]+)`", " ".join(re.findall(r"^#### (.*)$", text, re.MULTILINE)))
    assert sorted(words) == sorted(Reason)


def test_the_words_of_an_answer_exist() -> None:
    text = (ROOT / "docs/answers.md").read_text()
    table = text.partition("| word |")[2].partition("\n\n")[0]
    firsts = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert set(re.findall(r"`([a-z-]+)`", " ".join(firsts))) <= set(Reason)
    row = next(line for line in text.splitlines() if line.startswith("| `X-Circuit`"))
    assert re.findall(r"`([A-Z-]+)`:", row) == [state.value for state in State]


def test_the_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_the_program_that_embeds_it_runs() -> None:
    page = ROOT / "docs/embedding.md"
    [program] = [text for language, text in blocks(page) if language == "python"]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+\nOPEN\n", done.stdout)


# How a block is checked whose language says what it is.
CHECKED_LANGUAGES: Final = {"toml", "nginx", "caddyfile", "python", "sh"}  # sh: the tutorial's
MARK: Final = re.compile(r"<!-- (?:(not run): [^>]+|run by (tests/[\w/]+\.py)) -->\s*\Z")


def is_checked(language: str, text: str) -> bool:
    """Whether the other tests of this file look at all lines of a block."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    if lines[0].startswith("$ retter "):
        return True  # what follows is what it prints
    if "──" in text:
        return True  # a drawing
    ours = re.compile(r"(retter|python -m retter|make) ")
    return language in CHECKED_LANGUAGES or all(ours.match(line) for line in lines)


@pytest.mark.parametrize(
    "page", [page for page in DOCS if page.name != "ARCHITECTURE.md"], ids=lambda page: page.name
)
def test_each_block_is_checked_or_says_how_it_was_run(page: Path) -> None:
    text = page.read_text()
    for language, block in blocks(page):
        if is_checked(language, block):
            continue
        first = block.splitlines()[0] if language else f"    {block.splitlines()[0]}"
        before = text.partition(f"```{language}\n{first}" if language else f"\n{first}")[0]
        mark = MARK.search(before.removesuffix("```\n"))
        assert mark, f"mark it with <!-- not run: why --> or <!-- run by tests/... -->: {first}"
        assert mark[1] or (ROOT / mark[2]).is_file(), mark[2]
