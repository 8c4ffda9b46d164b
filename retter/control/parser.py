"""A parser of arguments whose complaints are one line, as those about settings are."""

import argparse
from typing import Any, NoReturn

from retter.config.likeness import hint
from retter.config.output import put
from retter.config.settings import ConfigError


class Parser(argparse.ArgumentParser):
    """Raises ConfigError, which names the command, instead of printing how it is used."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and what there is."""
        name = self.prog.removeprefix("retter ")
        raise ConfigError(f"{name}: {message}{hint(self, message)}")

    def print_help(self, file: Any = None) -> None:
        """Print how the command is used. Raises OutputLost."""
        put(self.format_help())
