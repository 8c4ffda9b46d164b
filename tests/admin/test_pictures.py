"""Each situation as a browser shows it, in both themes: nothing is cut off, and all can be read.

`PICTURES=/folder pytest tests/admin/test_pictures.py` keeps what was seen, for people to look at.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retter.admin.situation import Facts, derive
from retter.base.counters import Answers
from tests.admin.test_situation import CASES
from tests.real.browser import Watched, chromium
from tests.real.processes import DEADLINE_S, eventually
from tests.support.axe import axe_source
from tests.support.fed import Fed, crowded, fed_dashboard
from tests.support.tracing import untraced

pytestmark = [pytest.mark.xdist_group("pictures"), untraced]

FOLDER = os.environ.get("PICTURES", "")
WIDTHS = (390, 768, 1280, 2560)
HEIGHT = 800

# What is wider than its place, sticks out of its card, or lies over another text.
CUT_OFF = """() => {
  const found = [], inside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1
    && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  for (const e of document.querySelectorAll("header, header *, #hero, #hero *, .way dt, .way dd")) {
    if (!e.getClientRects().length || !e.textContent.trim()) continue;
    if (e.clientWidth && e.scrollWidth > e.clientWidth + 1) found.push(`cut off: ${e.outerHTML}`);
    const card = e.closest(".card, header").getBoundingClientRect();
    if (!inside(e.getBoundingClientRect(), card)) found.push(`sticks out: ${e.outerHTML}`);
  }
  const texts = [...document.querySelectorAll("#picture text")].filter((e) => e.textContent);
  const boxes = texts.map((e) => e.getBoundingClientRect());
  const picture = document.getElementById("picture").getBoundingClientRect();
  texts.forEach((e, i) => {
    const frame = e.parentElement.querySelector(":scope > rect, :scope > path:not(.rail)");
    const of_node = e.parentElement.classList.contains("node");
    const around = of_node ? frame.getBoundingClientRect() : picture;
    if (!inside(boxes[i], around)) found.push(`sticks out: ${e.textContent}`);
    for (let j = 0; j < i; j++) {
      const a = boxes[i], b = boxes[j];
      const apart = a.right <= b.left || b.right <= a.left
        || a.bottom <= b.top + 2 || b.bottom <= a.top + 2;
      if (!apart) found.push(`${e.textContent} over ${texts[j].textContent}`);
    }
  });
  return found;
}"""

SAID = """() => Object.fromEntries(["row", "headline", "visitors", "does", "you", "also"].map(
  (id) => [id, document.getElementById(id).textContent.replaceAll("\u00a0", " ")]))"""


@pytest.fixture(scope="module")
def fed() -> Iterator[Fed]:
    with fed_dashboard() as found:
        yield found


@pytest.fixture(scope="module", params=["light", "dark"])
def watched(request: pytest.FixtureRequest, fed: Fed) -> Iterator[Watched]:
    fed.tell(Facts())
    with chromium() as browser:
        context = browser.new_context(
            color_scheme=request.param, reduced_motion="reduce", bypass_csp=True
        )
        page = context.new_page()
        page.set_default_timeout(DEADLINE_S * 1000)
        found = Watched(page, fed.url)
        page.goto(fed.url)
        page.evaluate(axe_source())
        yield found
        found.check()


def barriers(page: Any, where: str) -> list[str]:
    """What axe finds there."""
    found = page.evaluate(f"axe.run({where}).then((found) => found.violations)")
    return [
        f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:200]}"
        for one in found
        for node in one["nodes"]
    ]


# Tables that have to be scrolled, and rows of figures that do not reach both sides.
HOLES = """() => {
  const found = [];
  for (const e of document.querySelectorAll(".scroll"))
    if (e.scrollWidth > e.clientWidth) found.push(`${e.getAttribute("aria-labelledby")}: ${
      e.scrollWidth} in ${e.clientWidth}`);
  const whole = document.querySelector(".figures").getBoundingClientRect(), rows = new Map();
  for (const e of document.querySelectorAll(".figures > *")) {
    const box = e.getBoundingClientRect();
    rows.set(box.top, [...rows.get(box.top) || [], box]);
  }
  for (const boxes of rows.values())
    if (boxes[0].left > whole.left + 1 || boxes.at(-1).right < whole.right - 1)
      found.push(`figures end at ${boxes.at(-1).right} of ${whole.right}`);
  return found;
}"""


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_full_of_figures_has_no_barrier_and_no_hole(
    watched: Watched, fed: Fed, width: int
) -> None:
    page = watched.page
    page.set_viewport_size({"width": width, "height": HEIGHT})
    busy = CASES[[case[0] for case in CASES].index("limiting")]
    fed.tell(Facts(**busy[2], log_lost=2), **crowded())
    rows = page.locator("#worker-rows tr")
    eventually(lambda: rows.count() == 3 or page.wait_for_timeout(10), "the crowded page")
    assert page.evaluate(HOLES) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert barriers(page, "document") == []
    if FOLDER:
        theme = page.evaluate("document.documentElement.dataset.theme")
        path = Path(FOLDER) / f"crowded-{width}-{theme}.png"
        page.screenshot(path=str(path), caret="initial", full_page=True)


def test_a_double_click_looks_further_once(watched: Watched, fed: Fed) -> None:
    """Both clicks ask, before there is an answer; the rows of one of them are added."""
    page = watched.page
    held: list[Any] = []

    def answer(route: Any) -> None:
        skip = int(re.search(r"skip=([0-9]+)", route.request.url)[1])  # type: ignore[index]
        entries = [
            {"url": f"shop.example/{skip + i}", "owner": "everyone", "age_s": 9, "bytes": 700,
             "status": 200, "variants": 1, "superseded": False, "withdrawn": False}
            for i in range(3)
        ]  # fmt: skip
        found = {"entries": entries, "next": skip + 3, "looked_through": skip + 3, "of": 60}
        route.fulfill(json=found)

    def hold(route: Any) -> None:
        if "skip=3" in route.request.url:
            held.append(route)
        else:
            answer(route)

    fed.tell(Facts())
    page.route("**/api/stored?*", hold)
    try:
        page.get_by_role("button", name="Look", exact=True).click()
        rows = page.locator("#stored-rows tr")
        eventually(lambda: rows.count() == 3 or page.wait_for_timeout(10), "the first rows")
        more = page.locator("#stored-more")
        more.evaluate("(button) => { button.click(); button.click(); }")
        eventually(lambda: len(held) == 2 or page.wait_for_timeout(10), "both clicks ask")
        for route in held:
            with page.expect_response("**/api/stored?*") as answered:
                answer(route)
            answered.value.finished()
        eventually(lambda: more.is_visible() or page.wait_for_timeout(10), "it is over")
        urls = [one.split()[0] for one in rows.all_inner_texts()]
        assert urls == [f"shop.example/{n}" for n in range(6)]
    finally:
        page.unroute("**/api/stored?*")


LONG = "a_name_that_somebody_has_chosen_without_a_thought_of_narrow_screens"
STRANGE: list[tuple[str, dict[str, Any]]] = [
    ("one route", {"routes_open": (f"GET /{LONG}/{LONG}/*",), "gets": Answers(200, 40)}),
    ("nothing there", {"met": False, "fault": f"{LONG}: no such name", "upstream": f"{LONG}:80"}),
]


@pytest.mark.release
@pytest.mark.parametrize(("row", "figures"), [*[(case[0], case[2]) for case in CASES], *STRANGE])
def test_each_situation_is_shown_whole(
    watched: Watched, fed: Fed, row: str, figures: dict[str, Any]
) -> None:
    page, facts = watched.page, Facts(**{"upstream": "127.0.0.1:8000"} | figures)
    page.set_viewport_size({"width": 1280, "height": HEIGHT})
    fed.tell(facts)
    told = derive(facts)
    wanted = {
        "row": row,
        "headline": told.now,
        "visitors": told.visitors,
        "does": told.retter,
        "you": told.you.replace("`", ""),
        "also": "".join(told.also),
    }
    eventually(lambda: page.evaluate(SAID) == wanted or page.wait_for_timeout(10), told.now)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        assert page.evaluate(CUT_OFF) == [], f"{width} px wide"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if FOLDER:
            theme = page.evaluate("document.documentElement.dataset.theme")
            path = Path(FOLDER) / f"{row.replace(', ', '-').replace(' ', '-')}-{width}-{theme}.png"
            page.screenshot(path=str(path), caret="initial")
    assert barriers(page, "{include: [['#hero'], ['.way']]}") == []
    # RETTER in the picture has the colour of the circuit's state, unless that decides nothing.
    decides = facts.paused_s is None and facts.forced != "observe"
    shown = page.locator("#picture").get_attribute("data-state")
    assert shown == (facts.state if decides else "")
