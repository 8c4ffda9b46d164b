"""The public interface: what `retter.__all__` names, and nothing that costs at import."""

import ast
import importlib.resources
import subprocess
import sys

import pytest

import retter

PUBLIC = {
    "ConfigError", "ListenError", "RunningProxy", "Settings", "Transition", "__version__",
    "running",
}  # fmt: skip


def test_what_is_public() -> None:
    assert set(retter.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(retter, name) is not None


def test_what_is_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Proxy'"):
        _ = retter.Proxy


def test_everything_public_is_documented() -> None:
    """In the source: of a class that is compiled nothing else has it."""
    for name in PUBLIC - {"__version__"}:
        module = sys.modules[getattr(retter, name).__module__].__name__.partition(".")[2]
        source = importlib.resources.files(retter).joinpath(*module.split(".")[:-1])
        text = source.joinpath(module.rpartition(".")[2] + ".py").read_text()
        (definition,) = [one for one in ast.parse(text).body if getattr(one, "name", "") == name]
        assert isinstance(definition, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        assert ast.get_docstring(definition), name


def test_the_import_alone_loads_no_loop() -> None:
    program = "import sys, retter; print('asyncio' in sys.modules, 'h11' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_types_come_with_the_package() -> None:
    assert importlib.resources.files("retter").joinpath("py.typed").is_file()


def test_an_error_of_the_settings_can_be_caught_by_its_public_name() -> None:
    with pytest.raises(retter.ConfigError, match="pool_size"):
        retter.Settings(upstream=":8080", pool_size=-1)
