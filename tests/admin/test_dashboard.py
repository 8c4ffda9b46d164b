"""The dashboard's page as it is sent: one document, nothing loaded, readable colours."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from retter.admin import dashboard
from retter.admin.chart import RATES
from tests.support.admin import admin_of
from tests.support.harness import get, reply

PAGE = dashboard.build()
HTML = PAGE.html.decode()
STYLE = HTML.partition("<style>")[2].partition("</style>")[0]
SCRIPT = HTML.partition("<script>")[2].partition("</script>")[0]

# Attributes that would make a browser ask for something.
LOADING = {"src", "srcset", "href", "action", "formaction", "poster", "data", "background"}


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(HTML)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


ELEMENTS = Elements().found


def source_of(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def test_the_policy_names_script_and_style_by_what_they_are() -> None:
    policy = dict(directive.split(" ", 1) for directive in PAGE.content_security_policy.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == source_of(SCRIPT)
    assert policy["style-src"] == source_of(STYLE)
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in PAGE.content_security_policy


def test_nothing_is_loaded_from_elsewhere() -> None:
    for tag, attributes in ELEMENTS:
        for name in LOADING & set(attributes):
            value = attributes[name] or ""
            assert value.startswith(("data:", "#")), f"<{tag} {name}={value}>"
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_the_icon_is_a_picture_in_the_page_that_the_script_gives_the_colour_of_the_state() -> None:
    (href,) = [a["href"] for tag, a in ELEMENTS if tag == "link" and a.get("rel") == "icon"]
    assert href is not None and href.startswith("data:image/svg+xml,")
    picture = ElementTree.fromstring(unquote(href.partition(",")[2]))
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(picture.iter())) > 1
    assert re.search(r'ICON\.replace\("(%23[0-9a-f]{6})"', SCRIPT)[1] in href  # type: ignore[index]
    assert "img-src data:;" in PAGE.content_security_policy


def test_the_policy_forbids_nothing_that_the_page_does() -> None:
    """No inline handlers or styles, and text gets in as text only."""
    for tag, attributes in ELEMENTS:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", SCRIPT)


def test_every_element_that_the_script_names_exists_once() -> None:
    names = [attributes["id"] for _, attributes in ELEMENTS if "id" in attributes]
    assert len(names) == len(set(names))
    used = set(re.findall(r'(?:\$|text)\("([a-z0-9-]+)"', SCRIPT))
    assert used <= set(names), used - set(names)
    assert len(used) > 40  # the pattern finds them


def test_what_can_be_filled_in_has_a_label() -> None:
    labelled = {attributes.get("for") for tag, attributes in ELEMENTS if tag == "label"}
    for tag, attributes in ELEMENTS:
        if tag == "input" and "hidden" not in attributes:
            assert attributes["id"] in labelled


# Colours: WCAG 2.2, success criterion 1.4.3 (AA)


def colours(selector: str) -> dict[str, str]:
    block = STYLE.partition(f"{selector} {{")[2].partition("}")[0]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("selector", [":root", ':root[data-theme="dark"]'])
def test_text_can_be_read_in_both_themes(selector: str) -> None:
    theme = colours(selector)
    for words in ("ink", "muted", "fresh", "stored", "refused", "failed", "trial"):
        for under in ("card", "ground"):
            ratio = contrast(theme[words], theme[under])
            assert ratio >= 4.5, f"{words} on {under}: {ratio:.2f}"
    # What is no text, as areas of the chart and the focus ring, needs 3 (1.4.11).
    assert contrast(theme["focus"], theme["ground"]) >= 3


@pytest.mark.parametrize("selector", [":root", ':root[data-theme="dark"]'])
def test_areas_are_told_from_their_ground_and_from_their_neighbours(selector: str) -> None:
    """WCAG 2.2, success criterion 1.4.11: 3 to 1."""
    theme = colours(selector)
    for name in ("fresh", "stored", "refused", "failed", "trial", "gone"):
        assert contrast(theme[f"{name}-fill"], theme["card"]) >= 3, name
    # In the chart, in the strip below it, and in the band of the circuit's states.
    for one, other in (
        ("fresh", "stored"), ("refused", "failed"), ("failed", "gone"),
        ("trial", "failed"), ("stored", "failed"), ("trial", "fresh"),
    ):  # fmt: skip
        ratio = contrast(theme[f"{one}-fill"], theme[f"{other}-fill"])
        assert ratio >= 3, f"{one} beside {other}: {ratio:.2f}"


def test_the_page_is_small() -> None:
    assert len(PAGE.html) < 100_000


# As the listener sends it


def test_the_page_comes_with_its_policy_and_without_a_token() -> None:
    """It holds no figures; those are asked for by the script, with the token."""
    with admin_of(admin_token="a-token-of-the-tests") as admin:
        reply = admin.ask("/")
        assert (reply.status, reply.body) == (200, PAGE.html)
        assert reply.fields["content-type"] == "text/html; charset=utf-8"
        assert reply.fields["content-security-policy"] == PAGE.content_security_policy
        assert admin.ask("/api/state").status == 401


def test_the_last_five_minutes_are_told_second_by_second() -> None:
    with admin_of() as admin:
        assert admin.ask("/api/history").json["state"] == []
        admin.proxy.client(get("/a"))
        admin.proxy.upstream.sends(reply())
        admin.proxy.advance(2.0)
        told = admin.ask("/api/history").json
        assert told["state"] == ["CLOSED", "CLOSED"]
        assert told["fresh"] == [1.0, 0.0]
        assert told["stored"] == told["refused"] == told["failed"] == [0.0, 0.0]
        assert len(told["p99_ms"]) == 2
        assert admin.state()["second"] == dict.fromkeys(RATES, 0.0)
        admin.proxy.advance(310.0)
        assert len(admin.ask("/api/history").json["fresh"]) == 300
