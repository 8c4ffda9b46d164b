"""The version, alone in a module so that the build reads it without importing the rest."""

VERSION = "1.0.0rc1"


def is_compiled() -> bool:
    """Whether a request's way has been compiled (setup.py)."""
    from retter import memo

    return not str(memo.__file__).endswith(".py")
