"""The waiting page: small, whole, in the visitor's language, and readable."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.proxy.waiting_page import PAGE_BYTES_MAX, WORDS, language_of, waiting_page


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        (b"", "en"),
        (b"de", "de"),
        (b"de-AT,de;q=0.9,en;q=0.8", "de"),
        (b"en;q=0.8, fr;q=0.9", "fr"),
        (b"sv, nl;q=0.5, en;q=0.1", "nl"),
        (b"pt-BR", "pt"),
        (b"zh-Hant-TW,zh;q=0.9", "zh"),
        (b"ja;q=0, en", "en"),
        (b"tr;q=x, it;q=0.2", "it"),
        (b"xx, yy", "en"),
        (b"*", "en"),
        (b"fr, de", "fr"),
    ],
)
def test_the_language_is_the_one_liked_best(accepted: bytes, language: str) -> None:
    """The choice is among the languages of the page."""
    assert language_of(accepted) == language


@given(st.binary(max_size=300))
def test_any_octets_name_some_language(accepted: bytes) -> None:
    """A stranger may send what it likes."""
    assert language_of(accepted) in WORDS


class Outline(HTMLParser):
    """Collects tags and text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("language", sorted(WORDS))
def test_the_page_stands_alone_and_comes_again(language: str) -> None:
    """No script, no picture, no link; under 4 KiB in every language."""
    page = waiting_page(language, 3, queued=True)
    assert len(page) < PAGE_BYTES_MAX
    outline = Outline(page)
    names = [tag for tag, _ in outline.tags]
    assert not {"script", "img", "link", "a", "iframe", "form"} & set(names)
    assert ("html", {"lang": "zh-Hans" if language == "zh" else language}) in outline.tags
    bars = [attributes for _, attributes in outline.tags if attributes.get("role") == "progressbar"]
    assert [bar["aria-label"] for bar in bars] == [WORDS[language].bar]
    assert WORDS[language].why in outline.text
    assert WORDS[language].again.format(3) in outline.text
    assert WORDS[language].place in outline.text
    assert WORDS[language].place not in Outline(waiting_page(language, 3, queued=False)).text


def test_a_dozen_languages_are_spoken() -> None:
    """All sentences of each, and none twice."""
    assert len(WORDS) == 12
    for words in WORDS.values():
        assert all(words)
        assert words.again.count("{}") == 1
    for index in range(5):
        assert len({words[index] for words in WORDS.values()}) == 12


@pytest.mark.parametrize("language", WORDS)
def test_a_page_says_why(language: str) -> None:
    full = waiting_page(language, 3, queued=True).decode()
    restart = waiting_page(language, 3, queued=False, restart=True).decode()
    words = WORDS[language]
    assert words.why in full and words.restart not in full
    assert words.restart in restart and words.why not in restart
    assert len(restart.encode()) <= PAGE_BYTES_MAX
