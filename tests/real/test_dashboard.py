"""The dashboard in a browser, in front of a RETTER in front of the demonstration shop."""

import http.client
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.real.browser import Watched, chromium
from tests.real.processes import DEADLINE_S, Program, UnhurriedRetter, eventually, free_port
from tests.real.wire import fetch
from tests.support.axe import axe_source
from tests.support.tracing import untraced

# One process runs them all: a browser, a shop and a RETTER are enough.
pytestmark = [pytest.mark.xdist_group("dashboard"), untraced]

TOKEN = "the-token-of-the-tests"
WAIT_MS = DEADLINE_S * 1000

# A browser says so in its console when a connection is refused or an answer is a 401.
REFUSED = ("net::ERR_", "Failed to load resource")


# The page counts the seconds down before it tries again by itself; without that only a click helps.
NO_COUNTDOWN = """
const later = window.setTimeout;
window.setTimeout = (done, ms) => ms === 1000 ? 0 : later(done, ms);
"""


# Of the circuit, as the band below the chart shows them.
STATES = "[...document.querySelectorAll('#band rect')].map((box) => box.dataset.state)"


class Shop(Program):
    """The demonstration shop, whose condition can be turned."""

    def __init__(self) -> None:
        super().__init__(
            [
                sys.executable,
                "-m",
                "retter.demo",
                "--listen",
                "127.0.0.1:0",
                "--control",
                "127.0.0.1:0",
            ],
        )
        self.upstream = self._address("demo listening on http://")
        self._control = self._address("knobs at http://").partition("/")[0]

    def _address(self, before: str) -> str:
        return self.wait_for_line(lambda line: line.startswith(before)).removeprefix(before)

    def turn(self, **knobs: Any) -> None:
        connection = http.client.HTTPConnection(self._control, timeout=DEADLINE_S)
        connection.request(
            "POST", "/knobs.json", json.dumps(knobs), {"Content-Type": "application/json"}
        )
        assert connection.getresponse().status == 200
        connection.close()


class Visitors:
    """Two people who look at a few pages, again and again, whatever they get."""

    PATHS = ("/", "/product/1", "/product/2")

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.answers = 0
        self._threads = [threading.Thread(target=self._visit, daemon=True) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _visit(self) -> None:
        while not self._stop.wait(0.02):
            for path in self.PATHS:
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
                connection.request("GET", path)
                connection.getresponse().read()
                connection.close()
                self.answers += 1

    def leave(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    program = Shop()
    yield program
    program.kill()


class Retter(UnhurriedRetter):
    """RETTER with an admin listener."""

    def __init__(self, shop: Shop, *arguments: str, admin: str = "127.0.0.1:0") -> None:
        super().__init__("--upstream", shop.upstream, "--admin", admin, *arguments)

    @property
    def admin_url(self) -> str:
        line = self.wait_for_line(lambda line: '"serving"' in line)
        url: str = json.loads(line)["admin"]
        return url


@pytest.fixture(scope="module")
def retter(browser: Any, shop: Shop) -> Iterator[Retter]:
    program = Retter(shop, "--open-min", "200ms", "--open-max", "500ms")
    yield program
    program.stop()
    program.kill()
    assert not program.complaints(), program.output


Open = Callable[..., Watched]


@pytest.fixture
def look(browser: Any) -> Iterator[Open]:
    """Open the dashboard as often as wanted."""
    contexts: list[Any] = []

    def open_page(url: str, path: str = "/", **options: Any) -> Watched:
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT_MS)
        watched = Watched(page, url)
        page.goto(url + path)
        return watched

    yield open_page
    for context in contexts:
        context.close()


def shows(page: Any, selector: str, wanted: str) -> str:
    """Wait until the text of an element matches, and return it."""
    found = page.locator(selector)

    def matching() -> str:
        words: str = found.inner_text() if found.is_visible() else ""
        return words if re.search(wanted, words) else ""

    return eventually(matching, f"{wanted!r} in {selector}, not {found.all_inner_texts()}")


def live(page: Any) -> None:
    shows(page, "#link-words", "^Live$")


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


# What is seen


def test_a_trip_and_a_recovery_are_seen(look: Open, retter: Retter, shop: Shop) -> None:
    watched = look(retter.admin_url)
    page = watched.page
    live(page)
    visitors = Visitors(retter.port)
    try:
        shows(page, "#state", "^CLOSED$")
        shows(page, "#now-fresh", "[1-9]")
        assert page.locator("#lever").get_attribute("data-at") == "shut"

        shop.turn(condition="dead", dead_for_s=3600)
        shows(page, "#state", "^OPEN$")
        shows(page, "#headline", "^The application (cannot be reached|fails)")
        shows(page, "#visitors", "from the store")
        assert page.locator("#lever").get_attribute("data-at") in ("open", "half")
        assert page.locator("#pic-app").get_attribute("data-health") in ("sick", "trial")
        shows(page, "#now-stored", "[1-9]")
        shows(page, "#events", "OPEN")
        eventually(lambda: page.title().startswith("DOWN "), "the situation in the title")
        # Said once to those who do not see it: the live region has the words of the last change.
        assert re.match("The application", page.locator("#live").inner_text())

        eventually(lambda: "OPEN" in page.evaluate(STATES), "a second of it is in the history")
        shop.turn(condition="healthy")
        shows(page, "#state", "^CLOSED$")
        shows(page, "#headline", "^(All is well|The application is busy|All is quiet)")
        shows(page, "#incidents", "answers? saved by RETTER")
        for state in ("OPEN", "HALF-OPEN", "LIMITING", "CLOSED"):
            assert state in page.locator("#events .to").all_inner_texts()
        assert page.locator("#lever").get_attribute("data-at") == "shut"
        words = page.locator("#picture").get_attribute("aria-label")
        assert "The circuit is CLOSED" in words
        assert page.locator("#area-stored").get_attribute("d").startswith("M")
    finally:
        shop.turn(condition="healthy")
        visitors.leave()
    assert visitors.answers
    watched.check()

    # A page that is opened later has the events before it.
    page = look(retter.admin_url).page
    live(page)
    shows(page, "#upstream", "^in front of 127.0.0.1:")
    shows(page, "#events", "application")
    assert page.locator("#routes").inner_text()


# What is done


def test_the_circuit_is_held_and_let_go(look: Open, retter: Retter) -> None:
    watched = look(retter.admin_url)
    page = watched.page
    live(page)
    # The headline, which names its section, may have that word in it as well.
    page.locator("#controls").get_by_label("for").first.select_option("60")
    button(page, "Hold open").click()
    assert page.get_by_role("dialog").get_by_role("heading").inner_text() == (
        "Hold the circuit open for 1 minute?"
    )
    page.get_by_role("dialog").get_by_role("button", name="Hold the circuit open").click()
    shows(page, "#state", "^OPEN$")
    shows(page, "#force", r"An operator holds the circuit open until \d\d:\d\d, \d+ s more")
    shows(page, "#answer", r"^In force until \d\d:\d\d")
    assert button(page, "Hold open").get_attribute("aria-pressed") == "true"
    assert button(page, "Automatic").get_attribute("aria-pressed") == "false"

    button(page, "Back to automatic").click()
    eventually(lambda: page.locator("#force").is_hidden(), "the word of the operator is gone")
    assert button(page, "Automatic").get_attribute("aria-pressed") == "true"
    watched.check()


def test_the_icon_is_a_picture_of_the_state(look: Open, retter: Retter) -> None:
    watched = look(retter.admin_url)
    page = watched.page
    live(page)
    icon = page.locator("#icon")
    eventually(lambda: "%23888888" not in icon.get_attribute("href"), "it has a colour")
    width = "i => { const p = new Image(); p.src = i.href; return p.decode().then(() => p.width); }"
    assert icon.evaluate(width) > 0, "the policy lets it in, and it can be drawn"
    watched.check()


def test_the_end_of_one_question_does_not_answer_the_next(look: Open, retter: Retter) -> None:
    """A browser tells of a closed dialog a while later, when there may be another."""
    page = look(retter.admin_url).page
    live(page)
    button(page, "Hold closed").click()
    page.evaluate("document.getElementById('confirm').dispatchEvent(new Event('close'))")
    page.get_by_role("dialog").get_by_role("button", name="Hold the circuit closed").click()
    shows(page, "#force", "holds the circuit closed until")
    button(page, "Back to automatic").click()
    eventually(lambda: page.locator("#force").is_hidden(), "the word of the operator is gone")


def test_a_pause_begins_and_ends(look: Open, retter: Retter) -> None:
    watched = look(retter.admin_url)
    page = watched.page
    live(page)
    assert button(page, "Resume").is_disabled()
    button(page, "Pause the application").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert page.locator("#pausing").is_hidden()
    button(page, "Pause the application").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    shows(page, "#headline", "^An operator has paused the application")
    shows(page, "#pausing", r"^Paused until \d\d:\d\d:\d\d, \d+ s more")
    assert page.locator("#lever").get_attribute("data-at") == "open"
    button(page, "Resume now").click()
    eventually(lambda: page.locator("#pausing").is_hidden(), "the pause is over")
    shows(page, "#answer", "^Resumed at")
    watched.check()


def test_a_page_is_asked_about(look: Open, retter: Retter) -> None:
    watched = look(retter.admin_url)
    page = watched.page
    live(page)
    field = page.get_by_role("textbox", name="What would happen")
    field.fill(f"http://127.0.0.1:{retter.port}/")
    field.press("Enter")
    shows(page, "#why-answer", "It would be")
    assert "owner" in page.locator("#why-answer").inner_text()
    field.fill("http://<b>x")
    button(page, "Ask").click()
    shows(page, "#why-answer", "error|refused")
    assert page.locator("#why-answer b").count() == 0
    watched.check(*REFUSED)


def test_the_keyboard_is_enough(look: Open, retter: Retter) -> None:
    watched = look(retter.admin_url)
    page = watched.page
    live(page)
    focused = "document.activeElement.textContent.trim() || document.activeElement.id"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Skip to the controls"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Automatic"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Hold closed"
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"

    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    assert page.evaluate(focused) == "Hold closed"

    page.keyboard.press("Space")
    inside = "document.querySelector('dialog[open]').contains(document.activeElement)"
    assert page.evaluate(inside)
    assert page.evaluate(focused) == "Hold the circuit closed"
    page.keyboard.press("Enter")
    shows(page, "#force", "holds the circuit closed until")
    button(page, "Back to automatic").press("Enter")
    eventually(lambda: page.locator("#force").is_hidden(), "the word of the operator is gone")
    watched.check()


def test_everything_that_can_be_used_has_a_name(look: Open, retter: Retter) -> None:
    page = look(retter.admin_url).page
    live(page)
    for role in ("button", "combobox", "textbox", "meter", "img", "region", "table"):
        # All at once: the page goes on changing.
        found = page.get_by_role(role).evaluate_all(
            "(all) => all.map((e) => [e.ariaLabel || e.getAttribute('aria-labelledby')"
            " || e.textContent.trim() || e.labels?.[0]?.textContent.trim(), e.outerHTML])"
        )
        for name, html in found:
            assert name, f"{role}: {html}"


# What goes wrong


def test_a_lost_connection_is_said_and_mended(look: Open, shop: Shop) -> None:
    port, admin = free_port(), f"127.0.0.1:{free_port()}"
    arguments = ("--listen", f"127.0.0.1:{port}")
    first = Retter(shop, *arguments, admin=admin)
    second = None
    try:
        watched = look(first.admin_url)
        page = watched.page
        live(page)
        first.kill()
        shows(page, "#link-words", "^Connection lost")
        assert page.locator("#live").inner_text() == "Connection to RETTER lost"
        assert button(page, "Try now").is_visible()
        second = Retter(shop, *arguments, admin=admin)
        assert second.admin_url == watched.origin
        live(page)
        assert button(page, "Try now").count() == 0
        watched.check(*REFUSED)
    finally:
        first.kill()
        if second is not None:
            second.kill()


def test_a_refusal_is_told_from_a_lost_connection(look: Open, retter: Retter) -> None:
    """As when too many pages are open: the listener is there, and says no."""
    watched = look(retter.admin_url)
    page = watched.page
    live(page)
    page.route("**/api/events", lambda route: route.fulfill(status=503, body="{}"))
    page.add_init_script(NO_COUNTDOWN)
    page.reload()
    shows(page, "#link-words", "^RETTER answered 503")
    page.unroute("**/api/events")
    button(page, "Try now").click()
    live(page)
    watched.check(*REFUSED)


def test_a_token_is_asked_for_and_kept_for_the_tab(look: Open, shop: Shop) -> None:
    program = Retter(shop, "--admin-token", TOKEN)
    try:
        watched = look(program.admin_url)
        page = watched.page
        field = page.get_by_role("textbox", name="Token")
        field.fill("not the token of this one")
        button(page, "Log in").click()
        shows(page, "#token-words", "token is wrong")
        assert field.input_value() == ""
        field.fill(TOKEN)
        field.press("Enter")
        live(page)
        shows(page, "#state", "^CLOSED$")
        button(page, "Observe only").click()
        button(page, "Only observe").click()
        shows(page, "#force", "has RETTER observe only until")

        page.reload()
        live(page)
        assert page.get_by_role("dialog").count() == 0
        assert TOKEN not in page.content()
        assert page.evaluate("localStorage.length") == 0
        watched.check(*REFUSED)
    finally:
        program.kill()


# How it looks


@pytest.mark.parametrize(("system", "other"), [("light", "dark"), ("dark", "light")])
def test_both_themes(look: Open, retter: Retter, system: str, other: str) -> None:
    watched = look(retter.admin_url, color_scheme=system)
    page = watched.page
    live(page)
    shade = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0] > 128"
    assert page.evaluate(shade) is (system == "light")
    button(page, f"{other.capitalize()} theme").click()
    assert page.evaluate(shade) is (other == "light")
    page.reload()
    assert page.evaluate(shade) is (other == "light")
    watched.check()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_sticks_out_at_the_side(look: Open, retter: Retter, width: int) -> None:
    watched = look(retter.admin_url, viewport={"width": width, "height": 800})
    page = watched.page
    live(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.get_by_role("button").evaluate_all(  # all at once: the page goes on changing
        "(all) => all.map((e) => [e.innerText, e.getBoundingClientRect().toJSON()])"
    )
    assert boxes
    for words, box in boxes:
        assert box["left"] >= 0 and box["right"] <= width, words
        assert box["height"] >= 24, words  # WCAG 2.2, 2.5.8
    watched.check()


@pytest.fixture(scope="module")
def several(browser: Any, shop: Shop) -> Iterator[Retter]:
    program = Retter(shop, "--workers", "2")
    yield program
    program.stop()
    program.kill()


ROWS = "[...document.querySelectorAll('#worker-rows tr')].map((row) => row.innerText)"


def test_each_of_several_workers_has_a_row(look: Open, several: Retter) -> None:
    watched = look(several.admin_url)
    page = watched.page
    live(page)
    page.locator("#worker-rows tr").nth(1).wait_for()
    before = page.evaluate(ROWS)
    assert (
        "leads" in before[0]
        and "leads" not in before[1]
        and [row.split()[-1] for row in before] == ["0", "0"]
    )
    assert page.get_by_role("table", name="Workers").get_by_role("rowheader").count() == 2
    pid = int(before[1].split()[1])
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        rows = page.evaluate(ROWS)
        return len(rows) == 2 and str(pid) not in rows[1].split() and rows[1].split()[-1] == "1"

    eventually(is_back, "the next worker has the row, with one restart")
    watched.check()


def test_a_single_process_has_no_rows_of_workers(look: Open, retter: Retter) -> None:
    page = look(retter.admin_url).page
    live(page)
    shows(page, "#total", "[0-9]")
    assert page.locator("#workers").is_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_the_rows_of_workers_fit_and_can_be_read(
    look: Open, several: Retter, theme: str, width: int
) -> None:
    page = look(
        several.admin_url,
        color_scheme=theme,
        viewport={"width": width, "height": 900},
        bypass_csp=True,
        reduced_motion="reduce",
    ).page
    live(page)
    page.locator("#worker-rows tr").nth(1).wait_for()
    table = "document.querySelector('#workers .scroll')"
    assert page.evaluate(f"{table}.scrollWidth <= {table}.clientWidth"), "no need to scroll"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(axe_source())
    found = page.evaluate("axe.run('#workers').then((found) => found.violations)")
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_checker_of_accessibility_finds_nothing(
    look: Open, retter: Retter, theme: str, width: int
) -> None:
    page = look(
        retter.admin_url,
        color_scheme=theme,
        viewport={"width": width, "height": 900},
        bypass_csp=True,
        reduced_motion="reduce",
    ).page
    live(page)
    page.evaluate(axe_source())
    found = page.evaluate("axe.run().then((found) => found.violations)")
    told = [
        f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:200]}"
        for one in found
        for node in one["nodes"]
    ]
    assert told == []


@pytest.mark.parametrize("width", [390, 1280, 1920, 2560])
def test_the_controls_are_in_sight_and_the_rows_are_full(
    look: Open, retter: Retter, width: int
) -> None:
    height = 844 if width == 390 else 800
    page = look(retter.admin_url, viewport={"width": width, "height": height}).page
    live(page)
    assert button(page, "Pause the application").bounding_box()["y"] < height, "without scrolling"
    rows: dict[int, list[tuple[float, float]]] = {}
    for box in page.locator("#present > *").evaluate_all(
        "(all) => all.map((e) => e.getBoundingClientRect().toJSON())"
    ):
        rows.setdefault(round(box["top"]), []).append((box["left"], box["right"]))
    for top, boxes in rows.items():
        # No hole at either side, and none between two that stand side by side.
        ends = [0.0, *[edge for box in sorted(boxes) for edge in box], float(width)]
        gaps = [ends[i + 1] - ends[i] for i in range(0, len(ends), 2)]
        assert max(gaps) <= max(40, (width - 2528) / 2 + 32), f"{gaps} at {top}"
    # The cards below stand in columns: the last one is used too.
    edges = page.locator(".more > :not([hidden])").evaluate_all(
        "(all) => all.map((e) => e.getBoundingClientRect().right)"
    )
    assert width - max(edges) <= max(40, (width - 2528) / 2 + 32)


def test_the_chart_has_ticks_units_and_longer_spans(look: Open, retter: Retter) -> None:
    watched = look(retter.admin_url)
    page = watched.page
    live(page)
    shows(page, "#axis-top", "^[0-9.,]+ a second$")
    shows(page, "#bad-axis-top", "^[0-9.,]+ a second$")
    assert shows(page, "#times", "5 min ago").split()[-1] == "now"
    for span, words, ticks in (
        ("hour", "1 h ago", 5),
        ("day", "24 h ago", 5),
        ("month", "30 days", 5),
    ):
        page.locator("#span").select_option(span)
        # Of a day a minute is told when it is over: there may be none yet.
        if span == "hour":
            shows(page, "#times", words)
            assert page.locator("#ticks").get_attribute("d").count("M") == ticks
    page.locator("#span").select_option("recent")
    shows(page, "#times", "5 min ago")
    assert "NaN" not in page.locator(".chart").inner_html()
    watched.check()


def test_nothing_moves_for_those_who_asked_for_that(look: Open, retter: Retter) -> None:
    page = look(retter.admin_url, reduced_motion="reduce").page
    live(page)
    moving = "getComputedStyle(document.getElementById('lane-in')).animationName"
    assert page.evaluate(moving) == "none"
    assert look(retter.admin_url).page.evaluate(moving) == "flow"


def test_the_chart_shows_a_state_that_was_over_before_anybody_looked(
    look: Open, retter: Retter
) -> None:
    """Open for less than the second between two looks: on an open page, and on a later one."""
    watched = look(retter.admin_url)
    live(watched.page)
    admin = int(retter.admin_url.rpartition(":")[2])
    for mode in ("open", "closed", "auto"):
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        assert fetch(admin, "POST", "/api/circuit", fields, f"mode={mode}".encode()).status == 200
    eventually(lambda: "OPEN" in watched.page.evaluate(STATES), "it is drawn")

    def told() -> bool:
        return "OPEN" in fetch(admin, "GET", "/api/history?span=hour").json["state"]

    eventually(told, "its second is over")
    watched = look(retter.admin_url)
    live(watched.page)
    watched.page.locator("#span").select_option("hour")
    eventually(lambda: "OPEN" in watched.page.evaluate(STATES), "it is drawn")
    assert "NaN" not in watched.page.evaluate("document.getElementById('plot').innerHTML")
    watched.page.mouse.move(1000, 500)
    watched.page.locator("#plot").hover()
    watched.check()


# What came later than the first picture: incidents, busy pages, what is stored


@pytest.mark.release
def test_an_incident_has_a_page_of_its_own(look: Open, shop: Shop) -> None:
    retter = Retter(shop)
    visitors = Visitors(retter.port)
    try:
        watched = look(retter.admin_url)
        page = watched.page
        live(page)
        shows(page, "#now-fresh", "[1-9]")
        shop.turn(condition="dead", dead_for_s=3600)
        shows(page, "#incidents", "Look closer")
        page.get_by_role("link", name="Look closer").first.click()
        shows(page, "#incident-title", "application")
        shows(page, "#incident-course", "application")
        shows(page, "#incident-figures", "Answers saved by RETTER")
        assert page.locator("#present").is_hidden()
        assert page.locator("#past-fresh").get_attribute("d").startswith("M")
        page.evaluate(axe_source())
        assert page.evaluate("axe.run().then((found) => found.violations.map((v) => v.id))") == []
        # It has an address: whoever gets the link sees the same.
        other = look(retter.admin_url, path="/#incident-1").page
        shows(other, "#incident-title", "application")
        page.get_by_role("link", name="Back to the present").click()
        eventually(lambda: page.locator("#present").is_visible(), "the present again")
        page.evaluate("location.hash = '#incident-99'")
        shows(page, "#incident-title", "no incident has the number")
        watched.check("404")
        watched.page.close()
        # An answer that comes late does not replace the page that was chosen since.
        page = look(retter.admin_url).page
        live(page)
        late: list[Any] = []
        page.route("**/api/incidents?number=1", lambda route: late.append(route))
        page.evaluate("location.hash = '#incident-1'")
        eventually(lambda: late or page.wait_for_timeout(20), "it is asked for")
        page.evaluate("location.hash = '#incident-98'")
        shows(page, "#incident-title", "no incident has the number")
        with page.expect_response("**/api/incidents?number=1") as answered:
            late[0].continue_()
        answered.value.finished()
        page.evaluate("new Promise((done) => setTimeout(done, 0))")
        shows(page, "#incident-title", "no incident has the number")
    finally:
        shop.turn(condition="healthy")
        visitors.leave()
        retter.stop()
        retter.kill()


@pytest.mark.release
def test_what_is_stored_is_found_and_purged(look: Open, retter: Retter) -> None:
    for path in ("/product/1", "/product/2", "/product/3"):
        connection = http.client.HTTPConnection("127.0.0.1", retter.port, timeout=DEADLINE_S)
        connection.request("GET", path)
        connection.getresponse().read()
        connection.close()
    watched = look(retter.admin_url)
    page = watched.page
    live(page)
    page.get_by_label("URLs that contain").fill("/product/2")
    button(page, "Look").click()
    shows(page, "#stored-words", "looked through")
    shows(page, "#stored-rows", "/product/2")
    assert "/product/1" not in page.locator("#stored-rows").inner_text()
    page.locator("#stored-rows button").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Purge").click()
    shows(page, "#stored-words", "^[1-9][0-9]* purged$")
    watched.check()
