"""Settings from flags, variables and the file, in this order, and the origin of each value."""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from retter.config.files import CONFIG_BYTES_MAX, read_file
from retter.config.legacy import ALIASES
from retter.config.settings import (
    ENVIRONMENT_PREFIX,
    SETTING_OF,
    SETTINGS,
    ConfigError,
    Contradiction,
    Setting,
    Settings,
)


@dataclass(frozen=True, slots=True)
class Effective:
    """The settings in force, where each comes from, and notices for the operator."""

    settings: Settings
    origins: Mapping[str, str]  # field -> "--drain", "RETTER_DRAIN", "site.toml: drain", "default"
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    origin: str


def load(
    flags: Mapping[str, Sequence[str]], environment: Mapping[str, str], *, pipe: bool = True
) -> Effective:
    """Merge flags over variables over the file over the defaults, and check the result.

    Args:
        flags: A setting's name, and the texts given for it, in order.
        pipe: The file may be a pipe. It is empty, or nobody writes to it, when it is read again.

    Raises:
        ConfigError: A setting is wrong, or the file cannot be read.
    """
    notices: list[str] = []
    from_flags = _from_flags(flags)
    from_variables = _from_aliases(environment, notices) | _from_variables(environment)
    notices += _misspelt_variables(environment)
    given = from_variables | from_flags
    if "config" in given and given["config"].value:
        given = _from_file(str(given["config"].value), given["config"].origin, pipe=pipe) | given
    settings = _settings(given)
    origins = {
        setting.field: given[setting.name].origin if setting.name in given else "default"
        for setting in SETTINGS
    }
    return Effective(settings, origins, tuple(notices))


@contextmanager
def named_as_given(effective: Effective) -> Generator[None, None, None]:
    """Name a setting in a complaint as it was given: as an option, a variable or a key."""
    try:
        yield
    except ConfigError as error:
        name, colon, rest = str(error).partition(": ")
        flags = {setting.field: setting.flag for setting in SETTINGS}
        if not colon or name not in flags:
            raise
        origin = effective.origins[name]
        raise ConfigError(f"{flags[name] if origin == 'default' else origin}: {rest}") from None


def _settings(given: Mapping[str, _Given]) -> Settings:
    values = {SETTING_OF[name].field: one.value for name, one in given.items()}
    try:
        return Settings(**cast("dict[str, Any]", values))
    except Contradiction as error:
        first, second = [
            _described(setting, given)
            for wanted in (error.first, error.second)
            for setting in SETTINGS
            if setting.field == wanted
        ]
        raise ConfigError(f"{first} {error.relation} {second}") from None


def _described(setting: Setting, given: Mapping[str, _Given]) -> str:
    one = given.get(setting.name, _Given(setting.default, "default"))
    value = setting.kind.show(one.value)
    if not value:
        return setting.flag
    if one.origin == setting.flag:
        return f"{setting.flag} {value}"
    return f"{setting.flag} {value} ({one.origin})"


def _converted(origin: str, convert: Callable[[Any], object], value: object) -> _Given:
    try:
        return _Given(convert(value), origin)
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _parsed(setting: Setting, origin: str, texts: Sequence[str]) -> _Given:
    """Parse the texts given for one setting. If it has one value, the last text counts."""
    if not setting.kind.many:
        return _converted(origin, setting.kind.parse, texts[-1])
    items: list[object] = []
    for text in texts:
        items += cast("tuple[object, ...]", _converted(origin, setting.kind.parse, text).value)
    return _Given(tuple(items), origin)


def _from_flags(flags: Mapping[str, Sequence[str]]) -> dict[str, _Given]:
    return {
        name: _parsed(SETTING_OF[name], SETTING_OF[name].flag_for(texts[-1]), texts)
        for name, texts in flags.items()
    }


def _from_variables(environment: Mapping[str, str]) -> dict[str, _Given]:
    # Compose files pass unset variables as empty texts, so an empty text counts as not given.
    return {
        setting.name: _from_variable(setting, setting.variable, environment[setting.variable])
        for setting in SETTINGS
        if environment.get(setting.variable)
    }


def _from_variable(setting: Setting, variable: str, text: str) -> _Given:
    texts = text.split() if setting.kind.spaces_split_variable else [text]
    return _parsed(setting, variable, texts)


def _from_aliases(environment: Mapping[str, str], notices: list[str]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for alias in ALIASES:
        text = environment.get(alias.variable)
        if not text:
            continue
        if not alias.name:
            notices.append(f"{alias.variable} is not used any more. {alias.advice}.")
            continue
        setting = SETTING_OF[alias.name]
        one = _from_variable(setting, alias.variable, text)
        given[alias.name] = _Given(not one.value, one.origin) if alias.negated else one
        advice = f" {alias.advice}." if alias.advice else ""
        notices.append(
            f"{alias.variable} is deprecated: use {setting.flag} or {setting.variable}.{advice}"
        )
    return given


def _misspelt_variables(environment: Mapping[str, str]) -> list[str]:
    """Return notices about variables that look like settings but are none.

    They are not errors: Kubernetes sets RETTER_PORT and others for a service called retter.
    """
    prefix = ENVIRONMENT_PREFIX  # all have it in common: it says nothing about likeness
    known = [setting.variable for setting in SETTINGS] + [alias.variable for alias in ALIASES]
    names = {name.removeprefix(prefix) for name in known}
    unknown = sorted(
        {name.removeprefix(prefix) for name in environment if name.startswith(prefix)} - names
    )
    near = [(name, nearest(name, names, likeness=0.75)) for name in unknown]
    return [
        f"{prefix}{name} is not a setting; did you mean {prefix}{guess}?"
        for name, guess in near
        if guess
    ]


def _from_file(path: str, named_by: str, *, pipe: bool) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for key, value in _read_toml(path, named_by, pipe=pipe).items():
        origin = f"{path}: {key}"
        setting = SETTING_OF.get(key.replace("-", "_"))
        if setting is None or setting.name == "config":
            names = [name for name in SETTING_OF if name != "config"]
            guess = nearest(key.replace("-", "_"), names)
            hint = f"did you mean {guess}?" if guess else "'retter --help' lists the settings"
            switch = SETTING_OF.get(key.replace("-", "_").removeprefix("no_"))
            if switch is not None and switch.is_switch:
                hint = f"write {switch.name} = false"
            raise ConfigError(f"{origin}: no such setting; {hint}")
        if setting.name in given:
            raise ConfigError(f"{origin}: given twice, with - and with _")
        convert = setting.kind.parse if isinstance(value, str) else setting.kind.accept
        given[setting.name] = _converted(origin, convert, value)
    return given


def _read_toml(path: str, named_by: str, *, pipe: bool) -> dict[str, object]:
    import tomllib  # 0.7 MB; only needed with a file

    octets = read_file(named_by, path, CONFIG_BYTES_MAX, pipe=pipe)
    try:
        # Some editors begin a file in UTF-8 with a mark of its encoding.
        return tomllib.loads(octets.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a TOML file: not in UTF-8 (octet {error.start + 1})"
        ) from None
    except (ValueError, RecursionError) as error:  # not TOML, or nested too deeply
        raise ConfigError(f"{path}: not a TOML file: {error}") from None


def nearest(word: str, known: Collection[str], likeness: float = 0.6) -> str | None:
    """Return the known word that looks most like this one, or None if none looks like it."""
    import difflib  # only needed after a mistake

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=likeness)), None)
