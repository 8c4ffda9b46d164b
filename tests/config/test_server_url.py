"""The URL of the server that boxes share."""

import pytest

from retter.config.settings import ConfigError, Settings
from retter.config.units import without_password


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://cache:6380/2",
        "redis://[2001:db8::1]:6379/0",
        "redis://:secret@cache",
        "rediss://retter:secret@cache:6380/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock",
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
    ],
)
def test_these_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^shared: "):
        Settings(upstream=":1", shared=url)


def test_no_message_and_no_table_shows_the_password() -> None:
    with pytest.raises(ConfigError) as raised:
        Settings(upstream=":1", shared="redis://retter:very-secret@cache/shop")
    assert "very-secret" not in str(raised.value)
    assert "redis://retter:***@cache/shop" in str(raised.value)
    settings = Settings(upstream=":1", shared="redis://:very-secret@cache")
    assert "very-secret" not in repr(settings)
    assert without_password("redis://:very-secret@cache/0") == "redis://:***@cache/0"
    assert without_password("redis://cache/0") == "redis://cache/0"
