"""The declaration, the merge of its four sources, and every message a wrong value gives."""

import dataclasses
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from retter.compression import compressors
from retter.config.legacy import ALIASES
from retter.config.likeness import nearest
from retter.config.load import load
from retter.config.settings import SESSION_COOKIES, SETTINGS, ConfigError, Setting, Settings

BY_NAME = {setting.name: setting for setting in SETTINGS}


NOTHING: Mapping[str, str] = {}


def refusal(flags: Mapping[str, Sequence[str]], environment: Mapping[str, str] = NOTHING) -> str:
    """Return the one line that these settings are refused with."""
    with pytest.raises(ConfigError) as told:
        load(flags, environment)
    message = str(told.value)
    assert "\n" not in message
    return message


def toml(folder: Path, text: str) -> str:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# The declaration


def test_names_lose_their_units_and_nothing_else() -> None:
    changed = [setting for setting in SETTINGS if setting.field != setting.name]
    assert {setting.field: setting.name for setting in changed} == {
        "drain_s": "drain",
        "event_loop": "loop",
        "connect_timeout_s": "connect_timeout",
        "connect_hold_s": "connect_hold",
        "upstream_timeout_s": "upstream_timeout",
        "upstream_timeout_unsafe_s": "upstream_timeout_unsafe",
        "upstream_body_timeout_s": "upstream_body_timeout",
        "pool_idle_s": "pool_idle",
        "pool_max_age_s": "pool_max_age",
        "head_bytes_max": "head_max",
        "target_bytes_max": "target_max",
        "request_body_bytes_max": "request_body_max",
        "head_timeout_s": "head_timeout",
        "body_idle_timeout_s": "body_idle_timeout",
        "keep_alive_s": "keep_alive",
        "write_timeout_s": "write_timeout",
        "body_min_rate_bytes": "body_min_rate",
        "write_buffer_bytes_max": "write_buffer_max",
        "store_memory_bytes": "store_memory",
        "store_disk_bytes": "store_disk",
        "store_object_bytes_max": "store_object_max",
        "max_stale_s": "max_stale",
        "compress_min_bytes": "compress_min",
        "patience_min_s": "patience_min",
        "patience_max_s": "patience_max",
        "patience_closed_s": "patience_closed",
        "buffer_request_bytes": "buffer_request",
        "upstream_body_min_rate_bytes": "upstream_body_min_rate",
        "buffer_answer_bytes": "buffer_answer",
        "buffer_memory_bytes": "buffer_memory",
        "queue_wait_s": "queue_wait",
        "write_wait_s": "write_wait",
        "retry_after_s": "retry_after",
        "open_min_s": "open_min",
        "open_max_s": "open_max",
        "fresh_for_s": "fresh_for",
    }
    assert len(BY_NAME) == len(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_default_is_of_its_own_kind_and_can_be_written_and_read(setting: Setting) -> None:
    assert setting.kind.accept(setting.default) == setting.default
    text = setting.kind.show(setting.default)
    if text:
        assert setting.kind.parse(text) == setting.default
    assert setting.about.endswith((".", ":"))


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().drain_s = 3  # type: ignore[misc]
    assert not hasattr(Settings(), "__dict__")


def test_settings_may_be_copied_with_changes_and_are_checked_again() -> None:
    assert dataclasses.replace(Settings(), drain_s=3).drain_s == 3.0
    with pytest.raises(ValueError, match="drain_s: -1"):
        dataclasses.replace(Settings(), drain_s=-1)


# Settings made in Python


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("listen", ":80", (":80",)),
        ("listen", [":80", "unix:/run/a b.sock"], (":80", "unix:/run/a b.sock")),
        ("listen", (" :80 ",), (":80",)),
        ("upstream", "unix:/run/app.sock", "unix:/run/app.sock"),
        ("drain_s", 0, 0.0),
        ("max_stale_s", 60, 60.0),
        ("store_memory_bytes", 1 << 30, 1 << 30),
        ("ignore_params", "utm_*, fbclid", ("utm_*", "fbclid")),
        ("session_cookies", [], ()),
        ("neutral_headers", ("X-Device",), ("x-device",)),
        ("failure_ratio", 1, 1.0),
        ("failure_statuses", (404, "410"), (404, 410)),
        ("failure_text", "auto, The shop is down", ("auto", "The shop is down")),
        ("failure_text", "Off", ()),
        ("failure_text", (), ()),
        ("routes", "/api/*, /search", ("/api/*", "/search")),
        ("circuit", "Observe", "observe"),
        (
            "trusted_proxies",
            "10.0.0.0/8, unix:,2001:db8::/32",
            (IPv4Network("10.0.0.0/8"), "unix:", IPv6Network("2001:db8::/32")),
        ),
        ("trusted_proxies", ["192.0.2.1"], (IPv4Network("192.0.2.1/32"),)),
        ("trusted_proxies", (ip_network("::1"),), (IPv6Network("::1/128"),)),
    ],
)
def test_natural_values_are_taken(field: str, value: object, kept: object) -> None:
    made = Settings(**{field: value})  # type: ignore[arg-type]
    assert getattr(made, field) == kept
    assert type(getattr(made, field)) is type(kept)


WRONG_VALUES: list[tuple[str, object, str]] = [
    ("listen", "here", "listen: 'here' has no port; write :80"),
    ("listen", (), "listen: no address given; write :80"),
    ("listen", (80,), "listen: 80 is not an address; write :80"),
    ("listen", 80, "listen: 80 is not a list"),
    ("listen", None, "listen: None is not a list"),
    ("upstream", "app", "upstream: 'app' has no port"),
    ("upstream", 8080, "upstream: 8080 is not text"),
    ("error_page", "a\0b", r"error_page: 'a\x00b' is not text"),
    ("drain_s", "15s", "drain_s: '15s' is not a duration in seconds from 0 to a year"),
    ("drain_s", True, "drain_s: true is not a duration"),
    ("drain_s", float("nan"), "drain_s: nan is not a duration"),
    ("drain_s", float("inf"), "drain_s: inf is not a duration"),
    ("drain_s", -0.1, "drain_s: -0.1 is not a duration"),
    ("max_stale_s", 0, "max_stale_s: 0 is too short; at least 1ms"),
    ("store_memory_bytes", 1.5, "store_memory_bytes: 1.5 is not a number of bytes"),
    ("store_memory_bytes", -1, "store_memory_bytes: -1 is not a number of bytes"),
    ("store_memory_bytes", 1 << 60, "is not a number of bytes from 0 to 1 PiB"),
    ("head_bytes_max", 100, "head_bytes_max: 100 is too small; at least 1KiB"),
    ("pool_size", -1, "pool_size: -1 is not a whole number from 0 to 1000000000"),
    ("pool_size", 2.0, "pool_size: 2.0 is not a whole number"),
    ("connections_max", 0, "connections_max: 0 is not a whole number from 1"),
    ("failure_ratio", 0, "failure_ratio: 0 is not a share above 0 and at most 1"),
    ("failure_ratio", 1.01, "failure_ratio: 1.01 is not a share"),
    ("failure_ratio", "half", "failure_ratio: 'half' is not a share"),
    ("headers", 1, "headers: 1 is neither true nor false"),
    ("circuit", "ajar", "circuit: 'ajar' is not one of auto, open, closed, observe"),
    ("log_level", None, "log_level: None is not one of debug, info, warning, error"),
    ("ignore_params", ("a&b",), "ignore_params: 'a&b' is not a parameter's name"),
    ("ignore_params", (1,), "ignore_params: 1 is not a parameter's name"),
    ("session_cookies", ("a b",), "session_cookies: 'a b' is not a cookie's name"),
    ("session_cookies", (None,), "session_cookies: None is not a cookie's name"),
    ("ignore_cookies", ("**",), "ignore_cookies: '**' would ignore every cookie"),
    ("neutral_headers", ("X-*",), "neutral_headers: 'X-*' is not a field name"),
    ("neutral_headers", ("x:y",), "neutral_headers: 'x:y' is not a field name"),
    ("neutral_headers", ("Cookie",), "neutral_headers: 'Cookie' identifies people"),
    ("neutral_headers", ("authorization",), "'authorization' identifies people"),
    ("failure_statuses", (302,), "failure_statuses: 302 is not an error status from 400 to 599"),
    ("failure_statuses", ("x",), "failure_statuses: 'x' is not an error status"),
    ("failure_text", ("Oops",), "'Oops' is neither auto nor off nor a text of 8 to 200 bytes"),
    ("failure_text", ("x" * 201,), "is neither auto nor off nor a text of 8 to 200 bytes"),
    ("failure_text", (7,), "failure_text: 7 is not text"),
    ("failure_text", ("an error",) * 65, "failure_text: 65 texts are too many; give at most 64"),
    ("routes", ("api",), "routes: 'api' is not a path; write /events or /api/*"),
    ("stream_paths", ("/a?b",), "stream_paths: '/a?b' is not a path; write /events or /api/*"),
    ("stream_paths", (1,), "stream_paths: 1 is not a path"),
    (
        "trusted_proxies",
        ("10.0.0.1/8",),
        "trusted_proxies: '10.0.0.1/8' has bits set below its prefix; write 10.0.0.0/8",
    ),
    ("trusted_proxies", ("2001:db8::1/32",), "has bits set below its prefix; write 2001:db8::/32"),
    ("trusted_proxies", ("proxy.example",), "'proxy.example' is not a network; write 10.0.0.0/8"),
    ("trusted_proxies", (10,), "trusted_proxies: 10 is not a network"),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG_VALUES)
def test_a_wrong_value_names_its_field_and_what_is_allowed(
    field: str, value: object, message: str
) -> None:
    with pytest.raises(ValueError, match="^" + field) as told:
        Settings(**{field: value})  # type: ignore[arg-type]
    assert message in str(told.value)
    assert "\n" not in str(told.value)


CONTRADICTIONS = [
    ("store_object_max", "2MiB", "store_memory", "1MiB"),
    ("patience_min", "2s", "patience_max", "1s"),
    ("patience_min", "2s", "patience_closed", "1s"),
    ("open_min", "2s", "open_max", "1s"),
    ("fresh_for", "2s", "max_stale", "1s"),
]


@pytest.mark.parametrize(("smaller", "small", "larger", "large"), CONTRADICTIONS)
def test_values_that_do_not_fit_together_are_refused(
    smaller: str, small: str, larger: str, large: str
) -> None:
    one, other = BY_NAME[smaller], BY_NAME[larger]
    values: dict[str, Any] = {
        one.field: one.kind.parse(small),
        other.field: other.kind.parse(large),
    }
    with pytest.raises(ValueError, match=f"^{one.field} may not be larger than {other.field}$"):
        Settings(**values)
    assert refusal({smaller: [small]}, {other.variable: large}) == (
        f"{one.flag} {small} may not be larger than {other.flag} {large} ({other.variable})"
    )
    swapped = {smaller: [large], larger: [small]}
    assert load(swapped, {}).settings  # the other way round they fit


def test_a_contradiction_with_a_default_says_so() -> None:
    assert refusal({"store_memory": ["1k"]}) == (
        "--store-object-max 1MiB (default) may not be larger than --store-memory 1KiB"
    )


def test_a_store_that_is_switched_off_needs_no_smaller_objects() -> None:
    assert Settings(store_memory_bytes=0).store_memory_bytes == 0


# Built-in session cookies


@pytest.mark.parametrize(
    "name",
    [
        "PHPSESSID",
        "JSESSIONID",
        "ci_session",
        "sessionid",
        "_myapp_session",
        "laravel_session",
        "my_shop_session",
        "my-shop-session",
        "connect.sid",
        "session",
        "ASP.NET_SessionId",
        ".AspNetCore.Session",
        ".AspNetCore.Cookies",
        ".AspNetCore.CookiesC1",
        ".ASPXAUTH",
        ".AspNetCore.Identity.Application",
        "wordpress_logged_in_0a1b",
        "wordpress_sec_0a1b",
        "wp_woocommerce_session_0a1b",
        "SESSION",
        "remember-me",
        "symfony",
        "REMEMBERME",
        "remember_token",
        "remember_web_59ba",
        "SESS0a1b",
        "SSESS0a1b",
        "__Host-session",
        "__Secure-next-auth.session-token",
        "next-auth.session-token.0",
    ],
)
def test_the_session_cookies_of_frameworks_are_known(name: str) -> None:
    assert any(fnmatchcase(name, pattern) for pattern in SESSION_COOKIES)


@pytest.mark.parametrize(
    "name",
    [
        "XSRF-TOKEN",
        "csrftoken",
        ".AspNetCore.Culture",
        ".AspNetCore.Antiforgery.x",
        "wp-postpass_0a",
        "wp-settings-1",
        "_ga",
        "lang",
        "theme",
        "token",
        "wordpress_test_cookie",
        "comment_author_0a",
    ],
)
def test_cookies_that_many_people_may_share_are_no_session_cookies(name: str) -> None:
    # The cookies beside a session cookie are ignored, so these would let people's pages mix.
    assert not any(fnmatchcase(name, pattern) for pattern in SESSION_COOKIES)


# Precedence

# A different value for each source, so that the winner can be told.
DRAIN = {"flag": "1s", "variable": "2s", "alias": "3s", "file": "4s"}
ORDER = ("flag", "variable", "alias", "file")
ORIGINS = {
    "flag": "--drain",
    "variable": "RETTER_DRAIN",
    "alias": "RETTER_SERVER_TIMEOUT_GRACESHUT",
}


@given(sources=st.sets(st.sampled_from(ORDER)))
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_flag_goes_before_a_variable_before_the_file(tmp_path: Path, sources: set[str]) -> None:
    flags: dict[str, list[str]] = {}
    environment: dict[str, str] = {}
    if "file" in sources:
        flags["config"] = [toml(tmp_path, f'drain = "{DRAIN["file"]}"')]
    if "flag" in sources:
        flags["drain"] = [DRAIN["flag"]]
    if "variable" in sources:
        environment["RETTER_DRAIN"] = DRAIN["variable"]
    if "alias" in sources:
        environment["RETTER_SERVER_TIMEOUT_GRACESHUT"] = DRAIN["alias"]
    effective = load(flags, environment)
    winner = next((source for source in ORDER if source in sources), None)
    if winner is None:
        assert (effective.settings.drain_s, effective.origins["drain_s"]) == (15.0, "default")
    else:
        assert effective.settings.drain_s == float(DRAIN[winner].removesuffix("s"))
        origin = ORIGINS.get(winner, f"{tmp_path / 'site.toml'}: drain")
        assert effective.origins["drain_s"] == origin


OTHER_VALUES: dict[str, str] = {
    "routes": "/api/*,/search",
    "stream_paths": "/poll",
    "never_store": "/checkout/*",
    "fairness": "observe",
    "client_prefix": "24,56",
    "crawlers": "auto,mybot",
    "rolling_cookies": "*_session",
    "vary_on": "X-Country",
    "shared": "redis://shop/1",
    "failure_text": "auto,Shop is down",
    "listen": ":1 :2",
    "upstream": ":8080",
    "config": "",
    "loop": "asyncio",
    "workers": "2",
    "admin": "off",
    "admin_token": "0123456789abcdef",
    "ignore_query": "true",
    "ignore_host": "true",
    "anonymous_fallback": "false",
    "headers": "false",
    "ignore_params": "a,b*",
    "session_cookies": "mine,other*",
    "ignore_cookies": "seen_*",
    "neutral_headers": "x-a,x-b",
    "store_policy": "rfc9111",
    "circuit": "observe",
    "failure_ratio": "0.25",
    "failure_statuses": "404,410",
    "limit_head": "true",
    "trusted_proxies": "10.0.0.0/8,unix:",
    "error_page": "oops.html",
    "access_log": "-",
    "log_level": "debug",
    "log_format": "json",
    "store_memory": "128MiB",
    "store_disk": "2GiB",
    "store_private": "off",
    "store_object_max": "2MiB",
    "head_max": "32KiB",
    "target_max": "8KiB",
    "access_log_format": "combined",
    "access_log_sample": "0.125",
    "request_body_max": "1GiB",
    "upstream_insecure": "true",
    "write_buffer_max": "1MiB",
    "tls_cert": "a.pem,b.pem",
    "tls_key": "a.key,b.key",
    "compress": "off",
    "compress_types": "text/html,image/*",
    "compress_exclude": "/account/*",
    "compress_level": "6",
}


def other_text(setting: Setting) -> str:
    """A value that is not the default and that all sources may give."""
    if setting.name in OTHER_VALUES:
        return OTHER_VALUES[setting.name]
    return "2500ms" if setting.kind.metavar == "TIME" else "17"


SETTABLE = [setting for setting in SETTINGS if setting.name != "config"]


@pytest.mark.parametrize("setting", SETTABLE, ids=lambda setting: setting.name)
def test_each_setting_may_come_from_each_source(setting: Setting, tmp_path: Path) -> None:
    text = other_text(setting)
    texts = text.split() if setting.name == "listen" else [text]
    as_toml = f'["{texts[0]}", "{texts[1]}"]' if setting.name == "listen" else f'"{text}"'
    path = toml(tmp_path, f"{setting.name.replace('_', '-')} = {as_toml}")
    found = [
        load({setting.name: texts}, {}),
        load({}, {setting.variable: text}),
        load({"config": [path]}, {}),
        load({}, {"RETTER_CONFIG": path}),
    ]
    values = [getattr(effective.settings, setting.field) for effective in found]
    assert values[0] != setting.default
    assert values == [values[0]] * 4
    key = f"{path}: {setting.name.replace('_', '-')}"
    assert [effective.origins[setting.field] for effective in found] == [
        setting.flag_for(texts[-1]),
        setting.variable,
        key,
        key,
    ]
    if setting.name == "admin_token":
        assert setting.kind.show(values[0]) == "(hidden)"
    elif setting.name != "listen":
        assert setting.kind.parse(setting.kind.show(values[0])) == values[0]


def test_the_last_of_several_texts_counts_unless_the_setting_is_a_list() -> None:
    flags = {"drain": ["1s", "2s"], "listen": [":1", ":2"], "ignore_params": ["a,b", "c"]}
    settings = load(flags, {}).settings
    assert settings.drain_s == 2.0
    assert settings.listen == (":1", ":2")
    assert settings.ignore_params == ("a", "b", "c")


def test_a_list_is_replaced_and_not_extended() -> None:
    environment = {"RETTER_LISTEN": ":1\t:2", "RETTER_SESSION_COOKIES": "theirs"}
    settings = load({"listen": [":3"], "session_cookies": ["mine"]}, environment).settings
    assert settings.listen == (":3",)
    assert settings.session_cookies == ("mine",)


def test_an_empty_variable_is_not_given() -> None:
    environment = {setting.variable: "" for setting in SETTINGS}
    environment |= {alias.variable: "" for alias in ALIASES}
    effective = load({}, environment)
    assert effective.settings == Settings()
    assert set(effective.origins.values()) == {"default"}
    assert effective.notices == ()


@given(
    st.dictionaries(
        st.sampled_from([setting.name for setting in SETTABLE]),
        st.lists(st.text(max_size=12), min_size=1, max_size=2),
        max_size=3,
    )
)
def test_any_text_is_taken_or_refused_in_one_line(flags: dict[str, list[str]]) -> None:
    message = "--"
    try:
        load(flags, {})
    except ConfigError as error:
        message = str(error)
    assert message.startswith("--")
    assert "\n" not in message


# Where a wrong value came from

WRONG_TEXTS = [
    ("drain", "soon", "'soon' is not a duration; write 1.5s, 200ms, 2m, 24h or plain seconds"),
    ("max_stale", "0", "0 is too short; at least 1ms"),
    ("store_memory", "64 parsecs", "'64 parsecs' is not a size; write 64MiB, 64MB, 64k or plain"),
    ("head_max", "1k1", "'1k1' is not a size"),
    ("head_max", "10", "10 is too small; at least 1KiB"),
    ("pool_size", "many", "'many' is not a whole number from 0 to 1000000000"),
    ("pool_size", "-1", "'-1' is not a whole number"),
    ("pool_size", "9" * 5000, "is not a whole number"),
    ("failure_ratio", "150%", "1.5 is not a share above 0 and at most 1, as 0.5 or 50%"),
    ("failure_ratio", "half", "'half' is not a share; write 0.5 or 50%"),
    ("headers", "perhaps", "'perhaps' is neither true nor false"),
    ("loop", "gevent", "'gevent' is not one of auto, uvloop, asyncio"),
    ("listen", "80x", "'80x' has no port; write :80"),
    ("failure_statuses", "404,200", "200 is not an error status from 400 to 599"),
    ("ignore_cookies", "a,*", "'*' would ignore every cookie and so mix people's pages"),
    (
        "trusted_proxies",
        "10.1.0.0/8",
        "'10.1.0.0/8' has bits set below its prefix; write 10.0.0.0/8",
    ),
]


@pytest.mark.parametrize(("name", "text", "message"), WRONG_TEXTS)
def test_a_wrong_text_says_where_it_came_from(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    setting = BY_NAME[name]
    path = toml(tmp_path, f'{name} = "{text}"')
    for said, origin in [
        (refusal({name: [text]}), setting.flag_for(text)),
        (refusal({}, {setting.variable: text}), setting.variable),
        (refusal({"config": [path]}), f"{path}: {name}"),
    ]:
        assert said.startswith(f"{origin}: ")
        assert message in said


# The file


def test_the_file_takes_the_types_of_toml(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        """
        listen = [":80", "unix:/run/retter.sock"]
        drain = 30
        pool-idle = 0.5
        store-memory = 134217728
        headers = false
        ignore-params = ["utm_*", "fbclid"]
        failure-statuses = [404]
        trusted-proxies = "10.0.0.0/8"
    """,
    )
    settings = load({"config": [path]}, {}).settings
    assert settings == Settings(
        config=path,
        listen=(":80", "unix:/run/retter.sock"),
        drain_s=30.0,
        pool_idle_s=0.5,
        store_memory_bytes=128 << 20,
        headers=False,
        ignore_params=("utm_*", "fbclid"),
        failure_statuses=(404,),
        trusted_proxies=("10.0.0.0/8",),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dran = 3", "dran: no such setting; did you mean drain?"),
        ("max-stael = 3", "max-stael: no such setting; did you mean max_stale?"),
        ("max_stale_s = 3", "max_stale_s: no such setting; did you mean max_stale?"),
        ("no_headers = true", "no_headers: no such setting; write headers = false"),
        ("no-headers = 'x'", "no-headers: no such setting; write headers = false"),
        ("xyzzy = 3", "xyzzy: no such setting; 'retter --help-all' lists the settings"),
        ("config = 'other.toml'", "config: no such setting"),
        (
            "[store]\nmemory = 1",
            "[store]: tables are not used: every setting stands at the top level; "
            "write store_memory = ... there",
        ),
        ("[retter]\ndrain = 1", "[retter]: tables are not used: every setting stands at the top"),
        ("[retter]\ndrain = 1", "; write drain = ... there"),
        ("[disk]", "[disk]: tables are not used: every setting stands at the top level"),
        ("max-stale = 3\nmax_stale = 4", "max_stale: given twice, with - and with _"),
        ("drain = true", "drain: true is not a duration in seconds from 0 to a year"),
        ("drain = [1]", "drain: [1] is not a duration"),
        ("headers = 1", "headers: 1 is neither true nor false"),
        ("pool-size = 1.5", "pool-size: 1.5 is not a whole number"),
        ("listen = []", "listen: no address given"),
        ("drain = 1979-05-27", "drain: datetime.date(1979, 5, 27) is not a duration"),
        ("drain = ", "not a TOML file: Invalid value"),
        ("upstream = :80", '(at line 1, column 12); text stands in quotes: upstream = ":8080"'),
        ("drain = 30s", '(at line 1, column 11); text stands in quotes: drain = "30s"'),
        ("drain = 1\ndrain = 2", "not a TOML file: Cannot overwrite a value"),
        ("drain = 1\ndrain = 2", "; each setting may be given once"),
        (f"drain = {'[' * 5000}1{']' * 5000}", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    assert message in refusal({"config": [toml(tmp_path, text)]})


def test_what_was_given_and_does_nothing_is_said(tmp_path: Path) -> None:
    def notices(text: str) -> list[str]:
        path = toml(tmp_path, text)
        return [one.removeprefix(f"{path}: ") for one in load({"config": [path]}, {}).notices]

    plain, tls = "upstream = 'app:8443'\n", "upstream = 'HTTPS://app'\n"
    wanted = "has no effect without --upstream https://HOST"
    assert notices(plain + "upstream_ca = 'ca.pem'\nupstream_insecure = true") == [
        f"upstream_ca {wanted}",
        f"upstream_insecure {wanted}",
    ]
    assert notices(tls + "upstream_ca = 'ca.pem'\nupstream_insecure = true") == []
    assert notices(plain + "store_disk = '2GiB'\nshared_secret = 'file'") == [
        "store_disk has no effect without --store FOLDER",
        "shared_secret has no effect without --shared URL",
    ]
    assert notices(plain + "store_disk = '2GiB'\nstore = 'pages'") == []
    assert notices(plain + "upstream_ca = ''\nstore_disk = '1GiB'") == [], "the defaults"


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(b"drain = '\xff'")
    assert f"{path}: not a TOML file" in refusal({"config": [str(path)]})
    path.write_text('drain = "7s"\n', encoding="utf-16")
    assert f"{path}: not a TOML file: not in UTF-8 (octet 1)" in refusal({"config": [str(path)]})
    path.write_text('drain = "7s"\n', encoding="utf-8-sig")  # as some editors write it
    assert load({"config": [str(path)]}, {}).settings.drain_s == 7


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "none.toml")
    assert refusal({"config": [path]}) == f"--config: {path}: No such file or directory"
    assert refusal({}, {"RETTER_CONFIG": path}).startswith(f"RETTER_CONFIG: {path}: ")
    assert refusal({"config": [str(tmp_path)]}).endswith("Is a directory")


def test_a_contradiction_inside_the_file_names_it(tmp_path: Path) -> None:
    path = toml(tmp_path, 'patience-min = "9s"')
    assert refusal({"config": [path]}) == (
        f"--patience-min 9s ({path}: patience-min) "
        "may not be larger than --patience-max 5s (default)"
    )


# Variables of the first RETTER


@pytest.mark.parametrize(
    ("variable", "text", "field", "value"),
    [
        ("RETTER_SERVER_LISTEN", ":80", "listen", (":80",)),
        ("RETTER_BACKEND_BASEURL", "http://localhost:8088", "upstream", "http://localhost:8088"),
        ("RETTER_CACHE_TTL", "60", "max_stale_s", 60.0),
        ("RETTER_CACHE_TTL", "1m30s", "max_stale_s", 90.0),
        ("RETTER_CACHE_DETECT_QUERY", "false", "ignore_query", True),
        ("RETTER_CACHE_DETECT_QUERY", "true", "ignore_query", False),
        ("RETTER_BREAKER_FAIL_RATE", "0.66", "failure_ratio", 0.66),
        ("RETTER_SERVER_TIMEOUT_WRITE", "15 seconds", "write_timeout_s", 15.0),
        ("RETTER_SERVER_TIMEOUT_READ", "15s", "head_timeout_s", 15.0),
        ("RETTER_SERVER_TIMEOUT_IDLE", "1m0s", "keep_alive_s", 60.0),
        ("RETTER_SERVER_TIMEOUT_GRACESHUT", "20", "drain_s", 20.0),
    ],
)
def test_an_old_variable_works_and_names_the_new_one(
    variable: str, text: str, field: str, value: object
) -> None:
    effective = load({}, {variable: text})
    assert getattr(effective.settings, field) == value
    assert effective.origins[field] == variable
    setting = next(setting for setting in SETTINGS if setting.field == field)
    (notice,) = effective.notices
    assert f"{variable} is deprecated: use {setting.flag} or {setting.variable}." in notice


@pytest.mark.parametrize("text", ["true", "false"])
def test_people_stay_apart_whatever_the_old_session_variable_says(text: str) -> None:
    effective = load({}, {"RETTER_CACHE_DETECT_SESSION": text})
    assert effective.settings == Settings()
    assert effective.notices == (
        "RETTER_CACHE_DETECT_SESSION is not used any more. Stored pages are always separated by "
        "person; name cookies that identify nobody with --ignore-cookies.",
    )


def test_the_old_count_of_failures_is_explained() -> None:
    effective = load({}, {"RETTER_BREAKER_CONSECUTIVE_FAIL": "5"})
    assert effective.settings == Settings()
    assert "--failure-ratio" in effective.notices[0]


def test_the_new_variable_goes_before_the_old_one() -> None:
    effective = load({}, {"RETTER_CACHE_TTL": "60", "RETTER_MAX_STALE": "2m"})
    assert (effective.settings.max_stale_s, effective.origins["max_stale_s"]) == (
        120.0,
        "RETTER_MAX_STALE",
    )
    assert len(effective.notices) == 1


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("RETTER_BREAKER_FAIL_RATE", "66", "RETTER_BREAKER_FAIL_RATE: 66.0 is not a share"),
        ("RETTER_BACKEND_BASEURL", "http://app/blog", "RETTER_BACKEND_BASEURL: 'http://app/blog'"),
        (
            "RETTER_SERVER_TIMEOUT_READ",
            "soon",
            "RETTER_SERVER_TIMEOUT_READ: 'soon' is not a duration",
        ),
        (
            "RETTER_CACHE_DETECT_QUERY",
            "x",
            "RETTER_CACHE_DETECT_QUERY: 'x' is neither true nor false",
        ),
    ],
)
def test_a_wrong_old_variable_is_named(variable: str, text: str, message: str) -> None:
    assert message in refusal({}, {variable: text})


def test_a_misspelt_variable_is_reported_and_others_are_left_alone() -> None:
    environment = {
        "RETTER_UPSTREAN": ":80",
        "RETTER_FOO": "1",  # not RETTER_LOOP
        "RETTER_SERVICE_HOST": "10.0.0.1",  # set by Kubernetes
        "RETTER_PORT": "tcp://10.0.0.1:8089",
        "RETTER_PORT_8089_TCP_ADDR": "10.0.0.1",
        "HOME": "/root",
    }
    assert load({}, environment).notices == (
        "RETTER_UPSTREAN is not a setting; did you mean RETTER_UPSTREAM?",
    )


@pytest.mark.parametrize(("word", "guess"), [("dran", "drain"), ("qqq", None), ("", None)])
def test_the_nearest_word_is_found(word: str, guess: str | None) -> None:
    assert nearest(word, ["drain", "listen"]) == guess


# -- compression


@pytest.mark.parametrize(
    ("text", "codings"),
    [
        ("off", ()),
        ("OFF", ()),
        ("no", ()),
        ("gzip", ("gzip",)),
        ("GZIP", ("gzip",)),
    ],
)
def test_codings(text: str, codings: tuple[str, ...]) -> None:
    settings = load({"compress": [text]}, {}).settings
    assert settings.compress == settings.codings == codings
    assert Settings(compress=text) == settings  # type: ignore[arg-type]


def test_auto_is_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressors, "available", lambda coding: coding != b"br")
    assert Settings().codings == ("zstd", "gzip")
    with pytest.raises(ConfigError, match=r"br needs a package .* pip install brotli$"):
        Settings(compress=("gzip", "br"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lzma", "'lzma' is not one of auto, off, zstd, gzip, br"),
        ("auto,gzip", "auto means all codings and cannot be combined with others"),
        ("gzip,off", "'off' is not one of auto, off, zstd, gzip, br"),
    ],
)
def test_codings_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load({"compress": [text]}, {})
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["html", "text/", "/x", "text/html; charset=utf-8", "text html"])
def test_media_types_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a media type"):
        load({"compress_types": [text]}, {})


def test_workers_are_a_number_or_one_for_each_cpu() -> None:
    def found(text: str) -> int:
        return load({"workers": [text]}, {}).settings.workers

    assert [found(text) for text in ("1", " 64 ", "Auto")] == [1, 64, 0]
    for text in ("0", "65", "-1", "many", ""):
        with pytest.raises(ConfigError, match="from 1 to 64"):
            found(text)
    assert Settings(upstream=":1", workers=0).workers == 0, "auto, from Python"


@pytest.mark.parametrize("value", ["0", "'0'", "65", "-1", "true", "1.5", "'many'"])
def test_workers_are_the_same_in_a_file_and_behind_the_option(value: str, tmp_path: Path) -> None:
    file = tmp_path / "retter.toml"
    file.write_text(f"workers = {value}\n")
    with pytest.raises(ConfigError, match="neither auto nor a whole number from 1 to 64"):
        load({"config": [str(file)]}, {})
    for good, found in (("'Auto'", 0), ("2", 2), ("'2'", 2)):
        file.write_text(f"workers = {good}\n")
        assert load({"config": [str(file)]}, {}).settings.workers == found


DEEP = "a." * 100_000 + "b"


@pytest.mark.parametrize(
    "text", [f"{DEEP} = 1", f"[{DEEP}]", f"x = {{ {DEEP} = 1 }}", f" [[{DEEP}]]"]
)
def test_a_key_of_very_many_parts_is_refused_at_once(text: str, tmp_path: Path) -> None:
    """To parse it would take minutes."""
    file = tmp_path / "retter.toml"
    file.write_text(f"drain = '1s'\n{text}\n")
    with pytest.raises(ConfigError, match="line 2: a key of more than 250 parts"):
        load({"config": [str(file)]}, {})


def test_dots_in_a_value_are_no_parts_of_a_key(tmp_path: Path) -> None:
    file, dots = tmp_path / "retter.toml", "." * 199
    file.write_text(f"failure_text = [\n'{dots}',\n'{dots}']\nstore = '{dots * 3}'\n")
    assert load({"config": [str(file)]}, {}).settings.failure_text == (dots, dots)
