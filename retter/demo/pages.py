"""The catalogue of the shop and the HTML of its pages. Pure functions.

Every page shows when it was made and by which query. In the browser it shows its own age, so that a
visitor sees whether it is fresh or stored.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import quote

PRODUCTS: Final = 500
FOUND_MAX: Final = 60  # search results on a page

CATEGORIES: Final[Mapping[str, tuple[str, str, int]]] = {  # slug -> name, emoji, hue
    "kitchen": ("Kitchen", "🫖", 20),
    "garden": ("Garden", "🌱", 110),
    "workshop": ("Workshop", "🔧", 210),
    "books": ("Books", "📚", 270),
    "light": ("Light", "💡", 48),
    "travel": ("Travel", "🎒", 175),
    "music": ("Music", "🎻", 330),
    "toys": ("Toys", "🧩", 0),
}
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "kitchen": ("Teapot", "Bread Knife", "Mortar", "Salt Mill", "Pan", "Cup", "Whisk", "Jar"),
    "garden": ("Trowel", "Watering Can", "Seed Box", "Rake", "Birdhouse", "Hose", "Pot", "Twine"),
    "workshop": ("Hammer", "Plane", "Vice", "Bit Set", "Level", "Clamp", "File", "Saw"),
    "books": ("Atlas", "Cookbook", "Almanac", "Novel", "Sketchbook", "Diary", "Primer", "Herbal"),
    "light": ("Lantern", "Desk Lamp", "Torch", "Candle", "Bulb", "Reading Light", "Sconce", "Wick"),
    "travel": ("Rucksack", "Flask", "Tent Peg", "Compass", "Map Case", "Hammock", "Stove", "Roll"),
    "music": ("Ocarina", "Metronome", "Fiddle Bow", "Tuner", "Harp", "Capo", "Drum", "Reed"),
    "toys": ("Puzzle", "Kite", "Top", "Marbles", "Yo-yo", "Dominoes", "Wooden Train", "Jacks"),
}
_KINDS_OF_MAKE: Final = (
    "Honest", "Quiet", "Sturdy", "Old-school", "Nimble", "Patient", "Northern", "Everyday",
    "Second-best", "Reliable", "Modest", "Stubborn",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Product:
    """One thing for sale."""

    number: int
    name: str
    category: str
    cents: int
    stock: int

    @property
    def price(self) -> str:
        """The price in the form of the pages."""
        return f"{self.cents // 100}.{self.cents % 100:02d} €"


def _product(number: int) -> Product:
    slugs = tuple(CATEGORIES)
    slug = slugs[number % len(slugs)]
    series = number // len(slugs)
    kind = _KINDS[slug][series % 8]
    make = _KINDS_OF_MAKE[(series // 8 + number) % len(_KINDS_OF_MAKE)]
    return Product(
        number=number,
        name=f"{make} {kind} No. {number}",
        category=slug,
        cents=490 + (number * 7919) % 14_500,
        stock=(number * 31) % 97,
    )


CATALOGUE: Final[Mapping[int, Product]] = {n: _product(n) for n in range(1, PRODUCTS + 1)}
BY_CATEGORY: Final[Mapping[str, tuple[Product, ...]]] = {
    slug: tuple(p for p in CATALOGUE.values() if p.category == slug) for slug in CATEGORIES
}


@dataclass(frozen=True, slots=True)
class Stamp:
    """The time, the query and the user of a page."""

    made_ms: int  # wall clock, milliseconds since 1970
    query: int
    user: str  # empty: nobody is logged in
    in_cart: int


# The styles inside every page, which work even if the style sheet cannot be loaded.
_INLINE_CSS: Final = (
    "body{margin:0;font:16px/1.5 system-ui,sans-serif;color:#223;background:#f6f4ef}"
    "main,header>div,footer>div{max-width:62rem;margin:auto;padding:0 1rem}"
    "header{background:#20343c;color:#fff}header a{color:#fff;text-decoration:none}"
    "header>div{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;align-items:center;min-height:3.4rem}"
    ".grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr))}"
)

STYLE_SHEET: Final = b"""\
header .brand{font-weight:700;font-size:1.15rem;margin-right:auto}
h1{font-size:1.5rem;margin:1.4rem 0 .8rem}
a{color:#0b6e63}
.card{background:#fff;border-radius:.6rem;overflow:hidden;text-decoration:none;color:inherit;
box-shadow:0 1px 3px #0002;display:block}
.card:hover{box-shadow:0 3px 10px #0003}
.card b,.card span{display:block;padding:0 .8rem}
.card span{padding-bottom:.7rem;color:#667}
.tile{font-size:2.6rem;text-align:center;padding:1.1rem 0;margin-bottom:.5rem}
.product{display:grid;gap:1.4rem;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr))}
.product .tile{font-size:7rem;border-radius:.6rem;margin:0}
.price{font-size:1.6rem;font-weight:700}
button,.button{font:inherit;background:#0b6e63;color:#fff;border:0;border-radius:.4rem;
padding:.5rem 1rem;cursor:pointer;text-decoration:none;display:inline-block}
button.warn{background:#a33c24}
button.on{outline:3px solid #e0a92e}
input,select{font:inherit;padding:.4rem .6rem;border:1px solid #aab;border-radius:.4rem;
max-width:100%;box-sizing:border-box}
form.inline{display:inline}
table{border-collapse:collapse;background:#fff;border-radius:.6rem;width:100%}
td,th{padding:.45rem .8rem;text-align:left;border-bottom:1px solid #eee}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
footer{margin-top:2.5rem;padding:1rem 0;color:#667;font-size:.9rem}
#age{border-radius:1rem;padding:.1rem .6rem;background:#dff1dd;color:#1d5a18}
#age.old{background:#fbe7bd;color:#744d00}
"""

# A page that is older than two seconds when it is shown was made for an earlier visit.
_AGE_SCRIPT: Final = (
    "<script>(function(){var a=document.getElementById('age'),t=+a.dataset.made,"
    "s=Math.max(0,(Date.now()-t)/1000);"
    "if(s>2){a.className='old';a.textContent='a stored page, '+"
    "(s<90?Math.round(s)+' s':Math.round(s/60)+' min')+' old'}"
    "else a.textContent='fresh'})()</script>"
)


def layout(title: str, body: str, stamp: Stamp) -> bytes:
    """Return a whole page."""
    seconds, millis = divmod(stamp.made_ms, 1000)
    clock = f"{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{millis:03d}"
    if stamp.user:
        who = (
            f"<span>Hello, <b>{escape(stamp.user)}</b></span>"
            '<form class="inline" method="post" action="/logout"><button>Log out</button></form>'
        )
    else:
        who = '<a href="/login">Log in</a>'
    cart = f"Cart ({stamp.in_cart})" if stamp.in_cart else "Cart"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_INLINE_CSS}</style>"
        '<link rel="stylesheet" href="/static/shop.css"></head><body>'
        '<header><div><a class="brand" href="/">The Corner Shop</a>'
        '<a href="/search">Search</a>'
        f'<a href="/cart">{cart}</a>{who}</div></header><main>{body}</main>'
        f"<footer><div>Made at {clock} UTC by query no. {stamp.query} "
        f'<span id="age" data-made="{stamp.made_ms}"></span></div></footer>'
        f"{_AGE_SCRIPT}</body></html>"
    ).encode()


def home() -> str:
    """Return the start page's body."""
    categories = "".join(
        f'<a class="card" href="/category/{slug}">{_tile(slug)}<b>{name}</b>'
        f"<span>{len(BY_CATEGORY[slug])} things</span></a>"
        for slug, (name, _, _) in CATEGORIES.items()
    )
    today = _cards(CATALOGUE[n] for n in range(37, PRODUCTS, 58))
    return (
        "<h1>Good things from around the corner</h1>"
        f'<div class="grid">{categories}</div><h1>Today</h1><div class="grid">{today}</div>'
    )


def category(slug: str) -> str:
    """Return the body of a category's page."""
    name = CATEGORIES[slug][0]
    return f'<h1>{name}</h1><div class="grid">{_cards(BY_CATEGORY[slug])}</div>'


def product(number: int) -> str:
    """Return the body of a product's page."""
    item = CATALOGUE[number]
    name = CATEGORIES[item.category][0]
    return (
        f'<p><a href="/category/{item.category}">{name}</a></p><div class="product">'
        f"{_tile(item.category)}<div><h1>{escape(item.name)}</h1>"
        f'<p class="price">{item.price}</p><p>{item.stock} in stock</p>'
        f'<form method="post" action="/cart/add"><input type="hidden" name="product" '
        f'value="{number}"><button>Put into the cart</button></form>'
        "<p>Made to be used every day and to be repaired when it breaks.</p></div></div>"
    )


def search(words: str) -> str:
    """Return the body of the search page, with results when there are words."""
    form = (
        '<h1>Search</h1><form action="/search"><input name="q" autofocus '
        f'value="{escape(words, quote=True)}"> <button>Search</button></form>'
    )
    wanted = words.lower().split()
    if not wanted:
        return form
    found = [p for p in CATALOGUE.values() if all(word in p.name.lower() for word in wanted)]
    shown = _cards(found[:FOUND_MAX])
    return f'{form}<p>{len(found)} found</p><div class="grid">{shown}</div>'


def cart(content: Mapping[int, int]) -> str:
    """Return the body of the cart's page: product number -> how many."""
    if not content:
        return '<h1>Your cart</h1><p>It is empty. <a href="/">Look around</a>.</p>'
    rows = "".join(
        f'<tr><td><a href="/product/{n}">{escape(CATALOGUE[n].name)}</a></td>'
        f'<td class="n">{count}</td><td class="n">{CATALOGUE[n].price}</td></tr>'
        for n, count in content.items()
    )
    cents = sum(CATALOGUE[n].cents * count for n, count in content.items())
    return (
        "<h1>Your cart</h1><table><tr><th>Thing</th><th class=n>Count</th><th class=n>Each</th>"
        f'</tr>{rows}</table><p class="price">{cents // 100}.{cents % 100:02d} €</p>'
        '<form method="post" action="/cart/empty"><button class="warn">Empty it</button></form>'
    )


def login() -> str:
    """Return the body of the login page; any name will do."""
    return (
        '<h1>Log in</h1><form method="post" action="/login"><p><input name="name" maxlength="40" '
        'placeholder="Your name" required autofocus></p><p><button>Log in</button></p></form>'
        "<p>Any name will do; there is no password.</p>"
    )


def about() -> str:
    """Return the body of the page that never changes."""
    return (
        "<h1>About</h1><p>This shop sells nothing. It exists to be overloaded, so that you can "
        "see what a visitor notices of it.</p>"
    )


def problem(title: str, text: str) -> str:
    """Return the body of an error page."""
    return f'<h1>{escape(title)}</h1><p>{escape(text)}</p><p><a href="/">To the start page</a></p>'


def _tile(slug: str) -> str:
    _, emoji, hue = CATEGORIES[slug]
    return f'<div class="tile" style="background:hsl({hue} 55% 88%)">{emoji}</div>'


def _cards(products: Iterable[Product]) -> str:
    return "".join([_CARDS[product.number] for product in products])


_CARDS: Final[Mapping[int, str]] = {
    p.number: (
        f'<a class="card" href="/product/{quote(str(p.number))}">{_tile(p.category)}'
        f"<b>{escape(p.name)}</b><span>{p.price}</span></a>"
    )
    for p in CATALOGUE.values()
}
