"""A parser of arguments whose complaints are one line, as those about settings are."""

import argparse
from typing import Any, NoReturn

from retter.config.output import put
from retter.config.settings import ConfigError


class Parser(argparse.ArgumentParser):
    """Raises ConfigError, which names the command, instead of printing how it is used."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and what there is."""
        name = self.prog.removeprefix("retter ")
        raise ConfigError(f"{name}: {message}{self._hint(message)}")

    def _hint(self, message: str) -> str:
        what, _, names = message.partition(": ")
        if what == "unrecognized arguments":
            return f"; see {self.prog} --help"
        if what == "the following arguments are required":
            missing = names.split(", ")
            for action in self._actions:  # argparse has no public way to list them
                if action.choices and (action.metavar or action.dest) in missing:
                    return f" ({', '.join(map(str, action.choices))})"
        return ""

    def print_help(self, file: Any = None) -> None:
        """Print how the command is used. Raises OutputLost."""
        put(self.format_help())
