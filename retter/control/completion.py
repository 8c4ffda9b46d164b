"""Completion for the shell: scripts for bash, zsh and fish, made from the parsers of the options.

Pure functions. Names, values and descriptions of options all come from the parsers, so a new option
is completed without a change here.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from retter.config.output import put
from retter.control.parser import Parser

SHELLS: Final = ("bash", "zsh", "fish")

# The kind of a value, by its name in the help.
_FILES: Final = frozenset({"FILE"})
_FOLDERS: Final = frozenset({"FOLDER"})
_CHOICES: Final = re.compile(r"[a-z0-9_-]+(\|[a-z0-9_-]+)+")

_PLAIN_MARKS: Final = frozenset(" ,.:;/+-_")  # no shell interprets them in a word
ABOUT_LENGTH_MAX: Final = 70  # characters: beside the option, on one line of a terminal


@dataclass(frozen=True, slots=True)
class Value:
    """A value: one of `choices`, the name of a file or a folder, or any text."""

    choices: tuple[str, ...] = ()
    files: bool = False
    folders: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """One option. `value` is None if it has none."""

    flag: str
    about: str
    value: Value | None


@dataclass(frozen=True, slots=True)
class Command:
    """One command with its options and the values of its operands. The proxy has the name "".

    If the first operand is one of some choices, `more` is what may come after it.
    """

    name: str
    about: str
    options: tuple[Option, ...]
    operand: Value
    more: Value


def commands(
    parsers: Mapping[str, argparse.ArgumentParser], choices: Mapping[str, Sequence[str]]
) -> tuple[Command, ...]:
    """Return the commands to complete.

    Args:
        parsers: The parser of each command; that of the proxy has the name "".
        choices: The possible values for a name in the help, such as MODE.
    """
    return tuple([_command(name, parser, choices) for name, parser in parsers.items()])


def _command(
    name: str, parser: argparse.ArgumentParser, choices: Mapping[str, Sequence[str]]
) -> Command:
    options: list[Option] = []
    operand, more = Value(), Value()
    for action in parser._actions:  # argparse has no public way to list them
        if action.help == argparse.SUPPRESS:
            continue
        value = None if action.nargs == 0 else _value(action, choices)
        about = _short(action.help or "")
        options += [Option(flag, about, value) for flag in action.option_strings]
        if not action.option_strings and value is not None:
            if operand.choices:
                more = _either(more, value)
            else:
                operand = _either(operand, value)
    return Command(name, _short(parser.description or ""), tuple(options), operand, more)


def _either(first: Value, second: Value) -> Value:
    return Value(
        first.choices + second.choices,
        first.files or second.files,
        first.folders or second.folders,
    )


def _value(action: argparse.Action, choices: Mapping[str, Sequence[str]]) -> Value:
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if action.choices:
        return Value(tuple([str(choice) for choice in action.choices]))
    if metavar in choices:
        return Value(tuple(choices[metavar]))
    if _CHOICES.fullmatch(metavar):
        return Value(tuple(metavar.split("|")))
    return Value(files=metavar in _FILES, folders=metavar in _FOLDERS)


def _short(text: str) -> str:
    """Return the first sentence, on one line, without characters that a shell interprets."""
    words = " ".join(text.replace("%%", "%").split())
    plain = "".join([one for one in words if one.isalnum() or one in _PLAIN_MARKS])
    sentence = re.split(r"(?<=[a-z0-9])[.;:] ", plain)[0].rstrip(".")
    if len(sentence) <= ABOUT_LENGTH_MAX:
        return sentence
    return sentence[:ABOUT_LENGTH_MAX].rpartition(" ")[0]


def script(shell: str, found: Sequence[Command]) -> str:
    """Return the script for a shell of SHELLS."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](found)


# bash: one function that looks at the words so far (Bash Reference Manual 8.6)

_BASH: Final = """\
# Completion of retter for bash: source it, or install it as
# /usr/share/bash-completion/completions/retter
_retter() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=
    # bash cuts --option=value into three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    if (( COMP_CWORD > 1 )) && [[ ${COMP_WORDS[1]} != -* ]]; then
        command=${COMP_WORDS[1]}
    fi
    case $command:$before in
@VALUES@
    esac
    case $command in
@WORDS@
    esac
}
complete -F _retter retter
"""


def _bash(found: Sequence[Command]) -> str:
    values = "\n".join([line for command in found for line in _bash_values(command)])
    words = "\n".join([_bash_words(command, found) for command in found])
    return _BASH.replace("@VALUES@", values).replace("@WORDS@", words)


def _bash_values(command: Command) -> Iterator[str]:
    for option in command.options:
        if option.value is not None:
            reply = f"            {_bash_reply(option.value)}\n            return ;;"
            yield f"        {command.name}:{option.flag})\n{reply}"


def _bash_reply(value: Value) -> str:
    words = " ".join(value.choices)
    asked = f"-W '{words}' " if words else ""
    if not (value.files or value.folders):
        return f'COMPREPLY=($(compgen {asked}-- "$word"))'
    asked += "-d " if value.folders else "-f "
    return f'compopt -o filenames; COMPREPLY=($(compgen {asked}-- "$word"))'


def _bash_words(command: Command, found: Sequence[Command]) -> str:
    operand = command.operand
    if not command.name:
        operand = Value(tuple([other.name for other in found if other.name]))
    options = Value(tuple([option.flag for option in command.options]))
    return (
        f"        {_pattern(command)})\n"
        "            if [[ $word == -* ]]; then\n"
        f"                {_bash_reply(options)}\n"
        f"{_bash_more(command)}"
        "            else\n"
        f"                {_bash_reply(operand)}\n"
        "            fi ;;"
    )


def _bash_more(command: Command) -> str:
    """Return a branch for what comes after the first operand, if it is one of some choices."""
    if not command.name or not command.operand.choices:
        return ""
    chosen, before = "|".join(command.operand.choices), "${COMP_WORDS[*]:2:COMP_CWORD-2}"
    return (
        f"            elif [[ ' '{before}' ' =~ \\ ({chosen})\\  ]]; then\n"
        f"                {_bash_reply(command.more)}\n"
    )


def _pattern(command: Command) -> str:
    return command.name or "''"


# zsh: _arguments for each command (zshcompsys)

_ZSH: Final = """\
#compdef retter
# Completion of retter for zsh: install it as _retter in a folder of $fpath.
_retter() {
    local -a commands
    commands=(
@COMMANDS@
    )
    if (( CURRENT == 2 )) && [[ ${words[2]} != -* ]]; then
        _describe command commands
        return
    fi
    local command=
    if [[ ${words[2]} != -* ]]; then
        command=${words[2]}
        shift words
        (( CURRENT-- ))
    fi
    case $command in
@CASES@
    esac
}
if [[ $funcstack[1] == _retter ]]; then
    _retter "$@"
else
    compdef _retter retter
fi
"""


def _zsh(found: Sequence[Command]) -> str:
    rows = "\n".join([f"        '{one.name}:{_colons(one.about)}'" for one in found if one.name])
    cases = "\n".join([_zsh_case(command) for command in found])
    return _ZSH.replace("@COMMANDS@", rows).replace("@CASES@", cases)


def _zsh_case(command: Command) -> str:
    specifications = [_zsh_option(option) for option in command.options]
    if command.name:
        if command.operand.choices:
            specifications.append(f"'1:operand:{_zsh_action(command.operand)}'")
            specifications.append(f"'*:operand:{_zsh_action(command.more)}'")
        else:
            specifications.append(f"'*:operand:{_zsh_action(command.operand)}'")
    body = " \\\n                ".join(["_arguments", *specifications])
    return f"        {_pattern(command)})\n            {body} ;;"


def _zsh_option(option: Option) -> str:
    takes = ""
    if option.value is not None:
        takes = f":value:{_zsh_action(option.value)}"
    return f"'*{option.flag}[{_colons(option.about)}]{takes}'"


def _zsh_action(value: Value) -> str:
    if value.files or value.folders:
        kind = "_files -/" if value.folders else "_files"
        return kind if not value.choices else f"{{compadd {' '.join(value.choices)}; {kind}}}"
    return f"({' '.join(value.choices)})" if value.choices else " "


def _colons(text: str) -> str:
    return text.replace(":", r"\:")


# fish: a line for each option (fish documentation, "complete")


def _fish(found: Sequence[Command]) -> str:
    head = (
        "# Completion of retter for fish: install it as\n"
        "# ~/.config/fish/completions/retter.fish\n"
        "complete -c retter -f\n"
    )
    names = " ".join([command.name for command in found if command.name])
    return head + "".join([line for one in found for line in _fish_lines(one, names)])


def _fish_lines(command: Command, names: str) -> Iterator[str]:
    if command.name:
        offer = f"-a {command.name} -d '{command.about}'"
        yield f"complete -c retter -n __fish_use_subcommand {offer}\n"
        when = f"'__fish_seen_subcommand_from {command.name}'"
        if command.operand.choices:
            chosen = f"__fish_seen_subcommand_from {' '.join(command.operand.choices)}"
            first, then = f"{when[:-1]}; and not {chosen}'", f"{when[:-1]}; and {chosen}'"
            yield f"complete -c retter -n {first}{_fish_arguments(command.operand)}\n"
            yield f"complete -c retter -n {then}{_fish_arguments(command.more)}\n"
        else:
            yield f"complete -c retter -n {when}{_fish_arguments(command.operand)}\n"
    else:
        when = f"'not __fish_seen_subcommand_from {names}'"
    for option in command.options:
        short = "s" if len(option.flag) == 2 else "l"
        takes = "" if option.value is None else f" -r{_fish_arguments(option.value)}"
        name = option.flag.lstrip("-")
        yield f"complete -c retter -n {when} -{short} {name}{takes} -d '{option.about}'\n"


def _fish_arguments(value: Value) -> str:
    words = [*value.choices]
    if value.folders:
        words.append("(__fish_complete_directories)")
    files = " -F" if value.files else " -f"
    return f"{files} -a '{' '.join(words)}'" if words else files


def parser() -> argparse.ArgumentParser:
    """Return the parser of `retter completion`."""
    found = Parser(
        prog="retter completion",
        description="Print a script with which a shell completes the options of retter.",
        epilog="bash: retter completion bash > /usr/share/bash-completion/completions/retter; "
        "zsh: retter completion zsh > /usr/local/share/zsh/site-functions/_retter; "
        "fish: retter completion fish > ~/.config/fish/completions/retter.fish",
        allow_abbrev=False,
    )
    found.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    return found


def main(arguments: Sequence[str], found: Sequence[Command]) -> int:
    """Run `retter completion SHELL` and return the exit code."""
    put(script(parser().parse_args(arguments).shell, found))
    return 0
