"""How this RETTER was built, for `retter --version` and the first line of the log."""

from retter.http import memo


def is_compiled() -> bool:
    """Whether a request's way has been compiled (setup.py)."""
    return not str(memo.__file__).endswith(".py")
