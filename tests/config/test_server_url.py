"""The URL of the server that boxes share."""

from pathlib import Path

import pytest

from retter.config.settings import ConfigError, Settings
from retter.config.units import without_password
from retter.proxy.sharing import far_keys


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://cache:6380/2",
        "redis://[2001:db8::1]:6379/0",
        "redis://:secret@cache",
        "rediss://retter:secret@cache:6380/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock",
        "rediss://cache?ssl_cert_reqs=none&ssl_check_hostname=False",
        "unix://retter:secret@/run/redis.sock?db=3",
    ],
)
def test_these_are_urls_of_a_server(url: str) -> None:
    assert Settings(upstream=":1", shared=url).shared == url


@pytest.mark.parametrize(
    "url",
    [
        "cache:6379",
        "http://cache",
        "redis://",
        "redis:///1",
        "redis://cache/shop",
        "redis://cache:port",
        "redis://cache/1/2",
        "redis://cache#1",
        " redis://cache",
        "unix://run/redis.sock",
        "unix://",
        "redis://cache?socket_timeout=1",
        "unix:///run/redis.sock?db=shop",
        "redis://one,two/0",
        "redis://cache /0",
        "redis://cache:0/0",
    ],
)
def test_these_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^shared: "):
        Settings(upstream=":1", shared=url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://cache/0?db=shop", "db: 'shop' is not a number"),
        ("rediss://cache?ssl_cert_reqs=all", "ssl_cert_reqs: 'all' is not none, optional or req"),
        ("rediss://cache?ssl_check_hostname=x", "ssl_check_hostname: 'x' is not true or false"),
        ("rediss://cache?ssl_ca_certs=", "ssl_ca_certs: '' is not the path of a file"),
        ("redis://cache?ssl_ca_certs=/ca.pem", "ssl_ca_certs is for TLS; write rediss:// in place"),
        ("unix:///run/r?ssl_keyfile=/k.pem", "ssl_keyfile is for TLS; write rediss:// in place of"),
    ],
)
def test_an_option_that_is_wrong_is_named(url: str, why: str) -> None:
    """The client says nothing of it before the first connection, or fails at each."""
    with pytest.raises(ConfigError) as raised:
        Settings(upstream=":1", shared=url)
    assert str(raised.value).startswith(f"shared: {why}")


def test_the_files_that_it_names_must_be_there(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    file = tmp_path / "ca.pem"
    settings = Settings(
        upstream=":1",
        shared=f"rediss://cache?ssl_cert_reqs=required&ssl_ca_certs={file}",
        shared_secret=str(secret),
    )
    with pytest.raises(ConfigError) as raised:
        far_keys(settings)
    assert str(raised.value) == f"shared: ssl_ca_certs: {file}: No such file or directory"
    file.touch()
    far_keys(settings)


def test_no_message_and_no_table_shows_the_password() -> None:
    with pytest.raises(ConfigError) as raised:
        Settings(upstream=":1", shared="redis://retter:very-secret@cache/shop")
    assert "very-secret" not in str(raised.value)
    assert "redis://retter:***@cache/shop" in str(raised.value)
    settings = Settings(upstream=":1", shared="redis://:very-secret@cache")
    assert "very-secret" not in repr(settings)
    assert without_password("redis://:very-secret@cache/0") == "redis://:***@cache/0"
    assert without_password("redis://cache/0") == "redis://cache/0"
