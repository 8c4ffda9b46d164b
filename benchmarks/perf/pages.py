"""The pages that the application serves."""

import random
import re
from typing import Final

from benchmarks.perf.scenarios import HTML_PAGE, PAGES

_SENTENCE: Final = b"<p>A circuit breaker lets an application finish its work.</p>\n"
_WORDS: Final = re.findall(
    "[a-z]+",
    "the a coat autumn winter price shop wool cotton size order basket free shipping delivery "
    "customer review returned quality colour navy green brown red large small medium new sale "
    "brand leather pocket button lined hood warm light rain proof water washing care instructions "
    "model designer season collection item stock left only today",
)


def page(name: str) -> bytes:
    """Return a page of its size in PAGES."""
    size = PAGES[name]
    if name == HTML_PAGE:
        return _list_of_articles(size)
    return (_SENTENCE * (size // len(_SENTENCE) + 1))[:size]


def _list_of_articles(size: int) -> bytes:
    """Return HTML that shrinks as a shop's does, to a bit less than a third; always the same."""
    chance = random.Random(7)

    def words(count: int) -> str:
        return " ".join(chance.choices(_WORDS, k=count))

    lines = ["<!doctype html>\n<html lang=en><meta charset=utf-8><title>Autumn coats</title><ul>\n"]
    while sum(map(len, lines)) < size:
        number, price = chance.randrange(10**6), chance.randrange(1000, 40_000)
        lines.append(
            f'<li class="product" id="p{number}"><a href="/articles/{number}/'
            f'{words(3).replace(" ", "-")}"><img src="/img/{chance.getrandbits(64):x}.jpg" '
            f'alt="{words(4)}" width="320" height="480"></a><h3>{words(5).title()}</h3>'
            f'<p>{words(30).capitalize()}.</p><span class="price">{price / 100:.2f}</span></li>\n'
        )
    return "".join(lines).encode()[:size]
