"""Settings from flags, variables and the file, in this order, and the origin of each value."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

from retter.config.files import CONFIG_BYTES_MAX, read_file
from retter.config.legacy import ALIASES
from retter.config.likeness import nearest
from retter.config.settings import (
    ENVIRONMENT_PREFIX,
    SETTING_OF,
    SETTINGS,
    ConfigError,
    Contradiction,
    Setting,
    Settings,
)
from retter.config.units import parse_upstream


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
    notices += _without_effect(settings, given)
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


def _without_effect(settings: Settings, given: Mapping[str, _Given]) -> list[str]:
    """Return notices about settings that were given and do nothing without another one."""
    needs: list[tuple[str, tuple[str, ...]]] = []
    if settings.upstream and not parse_upstream(settings.upstream).tls:
        needs.append(
            ("--upstream https://HOST", ("upstream_ca", "upstream_name", "upstream_insecure"))
        )
    if not settings.store:
        needs.append(("--store FOLDER", ("store_disk", "store_private")))
    if not settings.shared:
        needs.append(("--shared URL", ("shared_secret",)))
    return [
        f"{given[name].origin} has no effect without {need}"
        for need, names in needs
        for name in names
        if name in given and given[name].value != SETTING_OF[name].default
    ]


def _from_file(path: str, named_by: str, *, pipe: bool) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for key, value in _read_toml(path, named_by, pipe=pipe).items():
        origin = f"{path}: {key}"
        if isinstance(value, dict):
            raise ConfigError(_about_table(path, key, cast("Mapping[str, object]", value)))
        setting = SETTING_OF.get(key.replace("-", "_"))
        if setting is None or setting.name == "config":
            names = [name for name in SETTING_OF if name != "config"]
            guess = nearest(key.replace("-", "_"), names)
            hint = f"did you mean {guess}?" if guess else "'retter --help-all' lists the settings"
            switch = SETTING_OF.get(key.replace("-", "_").removeprefix("no_"))
            if switch is not None and switch.is_switch:
                hint = f"write {switch.name} = false"
            raise ConfigError(f"{origin}: no such setting; {hint}")
        if setting.name in given:
            raise ConfigError(f"{origin}: given twice, with - and with _")
        given[setting.name] = _converted(origin, setting.kind.read, value)
    return given


def _about_table(path: str, name: str, table: Mapping[str, object]) -> str:
    """Return what to write in place of a table: `[store] memory` is `store_memory`."""
    first = next(iter(table), "")
    wanted = [f"{name}_{first}".replace("-", "_"), first.replace("-", "_")]
    found = next((key for key in wanted if key in SETTING_OF), None)
    hint = f"; write {found} = ... there" if found else ""
    return f"{path}: [{name}]: tables are not used: every setting stands at the top level{hint}"


def _read_toml(path: str, named_by: str, *, pipe: bool) -> dict[str, object]:
    import tomllib  # 0.7 MB; only needed with a file

    octets = read_file(named_by, path, CONFIG_BYTES_MAX, pipe=pipe)
    try:
        # Some editors begin a file in UTF-8 with a mark of its encoding.
        text = octets.decode("utf-8-sig")
        if line := _deep_key(text):
            raise ConfigError(
                f"{path}: line {line}: a key of more than {KEY_DOTS_MAX} parts; "
                "every setting stands at the top level"
            )
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not a TOML file: not in UTF-8 (octet {error.start + 1})"
        ) from None
    except (ValueError, RecursionError) as error:  # not TOML, or nested too deeply
        raise ConfigError(f"{path}: not a TOML file: {error}{_toml_hint(str(error))}") from None


KEY_DOTS_MAX: Final = 250
"""The time that tomllib takes for a key is quadratic in its parts: 70 s for 64,000 of them, which
have 128 KB. A file of 1 MiB that is full of keys of 250 parts takes two to four seconds."""


def _deep_key(text: str) -> int:
    """Return the first line that has a key of too many parts, or 0."""
    if text.count(".") <= KEY_DOTS_MAX:
        return 0
    for number, line in enumerate(text.split("\n"), 1):
        # A key stands before an equals sign, or in brackets at the beginning of a line.
        before, *others = line.split("=")
        keys = [before, *others[:-1]] if others or before.lstrip().startswith("[") else []
        if any(key.count(".") > KEY_DOTS_MAX for key in keys):
            return number
    return 0


# Beginnings of what Python's parser says, and the mistake that is behind it most often. The line
# itself is not shown: it may hold a secret.
_TOML_HINTS: Final = {
    "Invalid value": '; text stands in quotes: upstream = ":8080"',
    "Expected newline or end of document after a statement": (
        '; text stands in quotes: drain = "30s"'
    ),
    "Cannot overwrite a value": "; each setting may be given once",
}


def _toml_hint(error: str) -> str:
    return next((hint for start, hint in _TOML_HINTS.items() if error.startswith(start)), "")
