"""Answers with a good status that are none: error pages in disguise, torsos, shrunken pages."""

import gzip
import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.reason import Reason
from retter.breaker import Mode
from retter.compression.compressors import compressor
from retter.http.known_names import CHALLENGE_TEXTS, FAILURE_TEXTS
from retter.http.message import ResponseHead
from retter.http.response_parser import ResponseParser
from retter.proxy.goodness import (
    AROUND_BYTES,
    BELIEVED_AFTER,
    BLANK_BYTES_MAX,
    DATA_ENDS,
    FAILING_MAX,
    FOLLOWED_BYTES_MAX,
    KNOWN_BYTES_MAX,
    KNOWN_PLACES_MAX,
    LATELY_S,
    NEW_BYTES_MAX,
    PAGE_ENDS,
    SMALL_BYTES_MAX,
    TORSOS_MAX,
    TROUBLE_S,
    Goodness,
    Verdict,
    has_shrunk,
    length_of,
)
from retter.proxy.learning import is_doubtful
from retter.store.record import StoredResponse
from tests.support.harness import (
    FakePeer,
    FakeProxy,
    body_of,
    field,
    get,
    reply,
    split_at,
    status_of,
)
from tests.support.site import Site, page
from tests.support.work import instructions_of

PAGE = b"<p>the shop's page with all its products</p>" * 200
ERROR = b"DB error: too many connections"
TEXTS = [text.encode() for text in FAILURE_TEXTS]


def head_of(*fields: str, status: str = "200 OK") -> ResponseHead:
    lines = [f"HTTP/1.1 {status}", *fields, "", ""]
    return ResponseParser().parse("\r\n".join(lines).encode())


def stored(body: bytes) -> StoredResponse:
    return StoredResponse(
        status=200, head=b"", body=body, content_coding=b"", etag=b"", last_modified=b"",
        stored_at=0.0, age_s=0.0, superseded=False, no_store=False, age_max_s=1e9, variant_key=b"",
        vary_names=(), vary=b"", received_age_s=0, entry_bytes=0,
    )  # fmt: skip


def coded(coding: str) -> ResponseHead:
    return head_of("Content-Type: text/html", f"Content-Encoding: {coding}", "Content-Length: 5")


def compressed(body: bytes, coding: str) -> bytes:
    if coding == "deflate":
        return zlib.compress(body)
    return bytes(compressor(coding.encode(), 1).whole(body))


HTML = head_of("Content-Type: text/html; charset=utf-8", "Content-Length: 5")


def judged(
    body: bytes, before: bytes | None = PAGE, head: ResponseHead = HTML, *, trouble: bool = False
) -> Verdict:
    old = None if before is None else stored(before)
    return Goodness(TEXTS).judge(b"*/", head, body, old, trouble=trouble)


class TestErrorPages:
    @pytest.mark.parametrize("text", FAILURE_TEXTS)
    def test_each_known_text_is_found_in_upper_and_lower_case(self, text: str) -> None:
        for words in (text, text.upper(), text.lower()):
            assert judged(b"<h1>" + words.encode() + b"</h1>") is Verdict.FAILED

    @pytest.mark.parametrize(
        "place", ["/maintenance", "/error/503.html", "https://shop.example/offline"]
    )
    def test_a_page_may_lead_to_an_error_page_itself(self, place: str) -> None:
        tag = f"<meta http-equiv='Refresh' content='0; url={place}'>please wait".encode()
        assert judged(tag) is Verdict.FAILED
        assert judged(tag.replace(b"'", b"")) is Verdict.FAILED
        elsewhere = b'<meta http-equiv="refresh" content="0;url=/maintenance-of-bikes">please wait'
        assert judged(elsewhere) is Verdict.GOOD

    @pytest.mark.parametrize("text", CHALLENGE_TEXTS)
    def test_a_challenge_is_for_its_client_and_replaces_nothing(self, text: str) -> None:
        goodness, page = Goodness(TEXTS), stored(PAGE)
        for _ in range(2 * BELIEVED_AFTER):
            verdict = goodness.judge(b"", HTML, text.encode() + b".", page, trouble=False)
            assert verdict is Verdict.NOT_STORED
        assert judged(text.encode() + PAGE) is Verdict.GOOD

    def test_a_small_page_without_such_a_text_is_the_page_now(self) -> None:
        assert judged(b"<h1>Closed for the holidays</h1>") is Verdict.GOOD

    @pytest.mark.parametrize("coding", ["", "gzip"])
    def test_a_sentence_that_each_page_has_for_its_scripts_is_none_of_a_failure(
        self, coding: str
    ) -> None:
        """A cart that was emptied has it as well as the full one."""
        cart = (
            b'<html><head><script>const texts = {"saved": "Your changes were saved for you.",'
            b' "failed": "An error has occurred.", "offline": "You seem to be offline at present."}'
            b"</script></head><body>%b</body></html>"
        )

        def sent(text: bytes) -> bytes:
            return compressed(text, coding) if coding else text

        words = random.Random(1).randbytes(2000).hex().encode()
        full, empty = sent(cart % words), sent(cart % b"Your cart is empty.")
        head = coded(coding) if coding else HTML
        goodness = Goodness(TEXTS)
        page = stored(full)._replace(content_coding=coding.encode())

        def verdict(text: bytes) -> Verdict:
            return goodness.judge(b"", head, sent(text), page, trouble=False)

        assert verdict(cart % b"Your cart is empty.") is Verdict.GOOD
        assert goodness.judge(b"", head, empty, page, trouble=True) is Verdict.NOT_STORED
        elsewhere = cart % b'<p>"An error has occurred."'
        assert verdict(elsewhere) is Verdict.FAILED
        assert verdict(cart % ERROR) is Verdict.FAILED
        assert verdict(b'{"Message": "An error has occurred."}') is Verdict.FAILED
        many = b'"An error has occurred."'.join([b" " * AROUND_BYTES] * (KNOWN_PLACES_MAX + 1))
        crowded = stored(sent(many + words))._replace(content_coding=coding.encode())
        assert goodness.judge(b"", head, sent(many), crowded, trouble=False) is Verdict.FAILED
        large = random.Random(1).randbytes(KNOWN_BYTES_MAX // 2).hex().encode()
        too_large = stored(sent(cart % large))._replace(content_coding=coding.encode())
        assert goodness.judge(b"", head, empty, too_large, trouble=False) is Verdict.FAILED

    def test_a_comment_with_the_text_of_an_error_page_hides_no_failure(self) -> None:
        """Whoever writes it has neither the tags of that page around it, nor its ends."""
        error = b"<html><body><h1>Sorry</h1><p>" + ERROR + b"</p><p>Come again later.</p></body>"
        comment = PAGE + b"<p>" + error.replace(b"<", b"&lt;") + b"</p>"
        assert judged(error, comment) is Verdict.FAILED
        assert judged(ERROR, comment) is Verdict.FAILED

    def test_maintenance_is_seen_whatever_the_stored_page_says(self) -> None:
        head = head_of("Content-Type: text/html", "Content-Length: 5", "Retry-After: 60")
        assert judged(b"back soon", PAGE, head) is Verdict.FAILED

    def test_a_page_about_errors_is_a_page(self) -> None:
        half = ERROR + b"." * (len(PAGE) // 2 - len(ERROR))
        assert judged(half) is Verdict.GOOD
        assert judged(half[:-1]) is Verdict.FAILED
        large = ERROR + b"." * (SMALL_BYTES_MAX - len(ERROR))
        assert judged(large, large * 3) is Verdict.GOOD
        assert judged(large[:-1], large * 3) is Verdict.FAILED

    @pytest.mark.parametrize(
        ("content_type", "verdict"),
        [
            ("text/plain", Verdict.FAILED),
            ("application/json", Verdict.FAILED),
            ("application/problem+json", Verdict.FAILED),
            ("Application/XHTML+XML", Verdict.FAILED),
            ("image/png", Verdict.GOOD),
            ("application/octet-stream", Verdict.GOOD),
        ],
    )
    def test_only_texts_are_read(self, content_type: str, verdict: Verdict) -> None:
        head = head_of(f"Content-Type: {content_type}", "Content-Length: 5")
        assert judged(ERROR, head=head) is verdict

    def test_what_has_no_type_is_read(self) -> None:
        assert judged(ERROR, head=head_of("Content-Length: 5")) is Verdict.FAILED

    @pytest.mark.parametrize("coding", ["gzip", "x-gzip"])
    def test_what_is_compressed_is_read(self, coding: str) -> None:
        head = coded(coding)
        words = ERROR + b"<p>We are sorry. Come again in a while, or call 555 01 99.</p>"
        error, page = gzip.compress(words, mtime=0), gzip.compress(PAGE, mtime=0)
        assert len(page) < 2 * len(error), "as it is sent it has not shrunk"
        assert judged(error, page, head) is Verdict.FAILED
        assert judged(error, PAGE, head) is Verdict.FAILED
        assert judged(ERROR, page) is Verdict.FAILED

    def test_a_bomb_is_not_unpacked(self) -> None:
        head = coded("gzip")
        bomb = gzip.compress(ERROR + bytes(8 << 20))
        # The length of another member stands at the end: it looks small.
        assert judged(bomb + gzip.compress(b""), PAGE * 10, head) is Verdict.GOOD

    @pytest.mark.parametrize("coding", ["deflate", "br", "zstd"])
    def test_a_page_is_compared_without_its_coding(self, coding: str) -> None:
        """The application compresses its pages, and its error pages not."""
        page = stored(compressed(PAGE, coding))._replace(content_coding=coding.encode())
        error = ERROR + b"<p>We are sorry. Come again in a while, or call 555 01 99.</p>" * 4
        assert len(page.body) < 2 * len(error), "as it is sent it has not shrunk"
        assert Goodness(TEXTS).judge(b"*/", HTML, error, page, trouble=False) is Verdict.FAILED
        same = compressed(ERROR * 4, coding)
        verdict = Goodness(TEXTS).judge(b"*/", coded(coding), same, page, trouble=False)
        assert verdict is (Verdict.FAILED if 2 * len(same) < len(page.body) else Verdict.GOOD)
        about = ERROR + PAGE
        assert Goodness(TEXTS).judge(b"*/", HTML, about, page, trouble=False) is Verdict.GOOD

    def test_a_coding_that_nobody_can_decode_is_compared_as_it_is(self) -> None:
        page = stored(b"x" * 100)._replace(content_coding=b"compress")
        assert Goodness(TEXTS).judge(b"*/", HTML, ERROR * 2, page, trouble=False) is Verdict.GOOD

    @pytest.mark.parametrize("coding", ["br", "zstd", "gzip", "gzip, gzip"])
    def test_what_cannot_be_decoded_is_not_read(self, coding: str) -> None:
        assert judged(b"\x8b" + ERROR, head=coded(coding)) is Verdict.GOOD

    def test_a_coding_that_is_none_hides_nothing(self) -> None:
        assert judged(ERROR, head=coded("utf-8")) is Verdict.FAILED

    @pytest.mark.parametrize("status", ["206 Partial Content", "304 Not Modified", "404 Not Found"])
    def test_other_statuses_speak_for_themselves(self, status: str) -> None:
        assert judged(ERROR, head=head_of(status=status), trouble=True) is Verdict.GOOD

    def test_a_page_that_asks_to_come_later_is_one_of_maintenance(self) -> None:
        head = head_of("Content-Type: text/html", "Retry-After: 600")
        assert judged(b"Back soon", head=head) is Verdict.FAILED
        assert judged(PAGE + b"!", head=head) is Verdict.GOOD
        accepted = head_of("Retry-After: 5", "Content-Length: 2", status="202 Accepted")
        assert judged(b"{}", head=accepted) is Verdict.GOOD
        running = head_of("Content-Type: application/json", "Retry-After: 5", "Content-Length: 20")
        assert judged(b'{"state": "running"}', head=running) is Verdict.GOOD

    def test_new_pages_are_read_in_trouble_only(self) -> None:
        assert judged(ERROR, None) is Verdict.GOOD
        assert judged(ERROR, None, trouble=True) is Verdict.UNCLEAR
        assert judged(PAGE, None, trouble=True) is Verdict.GOOD
        assert judged(ERROR + bytes(NEW_BYTES_MAX), None, trouble=True) is Verdict.GOOD

    def test_other_texts_or_none(self) -> None:
        goodness = Goodness([b"Our SHOP is down"])
        page = stored(PAGE)
        assert goodness.judge(b"", HTML, b"our shop is DOWN", page, trouble=False) is Verdict.FAILED
        assert goodness.judge(b"", HTML, ERROR, page, trouble=False) is Verdict.GOOD
        goodness.configure([])
        assert goodness.judge(b"", HTML, b"our shop is down", page, trouble=False) is Verdict.GOOD


class TestRedirects:
    """In place of a page."""

    @staticmethod
    def judged(
        place: str, *, trouble: bool = False, public: bool = True, status: str = "302 Found"
    ) -> Verdict:
        page = stored(PAGE)._replace(public=public)
        head = head_of(f"Location: {place}", "Content-Length: 0", status=status)
        return Goodness(TEXTS).judge(b"*/", head, b"", page, trouble=trouble)

    @pytest.mark.parametrize("trouble", [False, True])
    @pytest.mark.parametrize(
        "place",
        [
            "/maintenance",
            "/maintenance.html?from=/",
            "/under-maintenance/",
            "https://status.example/maintenance-mode.php",
            "/error/500",
            "/errors/503.html",
            "/errordocs/502",
            "/500.html",
            "/error500.php",
            "/Service-Unavailable",
            "/offline.html#now",
            "/internal-server-error",
            "/dberror.php",
            "/Error.aspx?aspxerrorpath=/shop",
        ],
    )
    def test_one_to_an_error_page_is_a_failure(self, place: str, trouble: bool) -> None:
        assert self.judged(place, trouble=trouble) is Verdict.FAILED

    @pytest.mark.parametrize(
        "place",
        [
            "/new",
            "/articles/500",
            "/500",
            "/blog/how-to-avoid-maintenance-costs",
            "/NotFound?aspxerrorpath=/gone",
            "/Error/404?aspxerrorpath=/gone",
            "/error/404",
            "/?next=/maintenance",
            "/downloads",
            "/down",
            "/" + "a" * 1000 + "/maintenance",
        ],
    )
    def test_any_other_says_that_the_page_has_moved(self, place: str) -> None:
        assert self.judged(place) is Verdict.GOOD

    def test_in_trouble_none_replaces_a_page(self) -> None:
        for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"):
            assert self.judged("/new", trouble=True, status=status) is Verdict.NOT_STORED
        assert self.judged("/login?next=/", trouble=True) is Verdict.NOT_STORED

    def test_but_who_is_led_to_a_login_sees_the_own_page_no_more(self) -> None:
        assert self.judged("/login?next=/", trouble=True, public=False) is Verdict.GOOD
        assert self.judged("/home", trouble=True, public=False) is Verdict.NOT_STORED

    def test_one_to_what_may_be_an_error_page_is_believed_the_third_time(self) -> None:
        goodness, page = Goodness(TEXTS), stored(PAGE)
        head = head_of("Location: /error.php?from=/", status="302 Found")
        verdicts = [goodness.judge(b"*/", head, b"", page, trouble=False) for _ in range(3)]
        assert verdicts == [Verdict.NOT_STORED] * 2 + [Verdict.GOOD]

    def test_nothing_or_a_redirect_is_no_page(self) -> None:
        head = head_of("Location: /maintenance", status="302 Found")
        for before in (None, stored(b"")._replace(status=301)):
            assert Goodness(TEXTS).judge(b"*/", head, b"", before, trouble=True) is Verdict.GOOD


class TestEndOfPage:
    WHOLE = b"<html>" + PAGE + b"</html>\n<!-- 0.2 s -->"
    CUT = WHOLE[:-60]

    def test_a_page_that_lost_its_end_is_believed_the_third_time(self) -> None:
        goodness, page = Goodness(TEXTS), stored(self.WHOLE)
        verdicts = [goodness.judge(b"*/", HTML, self.CUT, page, trouble=False) for _ in range(3)]
        assert verdicts == [Verdict.NOT_STORED] * 2 + [Verdict.GOOD]
        assert goodness.judge(b"*/", HTML, self.CUT, page, trouble=True) is Verdict.NOT_STORED

    def test_if_it_ends_with_an_error_it_is_a_failure(self) -> None:
        body = self.CUT + b"<br />\n<b>Fatal error</b>:  Uncaught Error in /var/www/a.php:7"
        assert judged(body, self.WHOLE) is Verdict.FAILED

    def test_a_whole_page_is_one_whatever_it_is_about(self) -> None:
        body = self.CUT + b"<b>Fatal error</b>: Uncaught</html>"
        assert judged(body, self.WHOLE) is Verdict.GOOD
        assert judged(self.CUT, self.CUT + b"x") is Verdict.GOOD, "it never had such an end"


class TestTorsos:
    CLOSE = head_of("Content-Type: text/html", "Connection: close")
    HALF = PAGE[: len(PAGE) // 2 - 1]

    BLANK = (b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b" " * BLANK_BYTES_MAX)

    @pytest.mark.parametrize(
        ("head", "body"),
        [
            (HTML, b""),
            (CLOSE, HALF),
            (CLOSE, b""),
            *[(HTML, blank) for blank in BLANK],
            *[(coded("gzip"), gzip.compress(blank, mtime=0)) for blank in (b"", *BLANK)],
        ],
    )
    def test_the_third_in_a_row_is_believed(self, head: ResponseHead, body: bytes) -> None:
        goodness = Goodness()
        page = stored(PAGE)
        verdicts = [
            goodness.judge(b"*/", head, body, page, trouble=False) for _ in range(BELIEVED_AFTER)
        ]
        assert verdicts == [Verdict.NOT_STORED] * 2 + [Verdict.GOOD]
        assert not goodness.torsos

    JSON = head_of("Content-Type: application/json; charset=utf-8", "Content-Length: 5")
    FEED = head_of("Content-Type: application/rss+xml", "Content-Length: 5")
    ROWS = b'{"rows": [' + b'{"id": 1}, ' * 400 + b"{}]}"
    ITEMS = b"<rss>" + b"<item>a</item>" * 400 + b"</rss>\n"

    @pytest.mark.parametrize(
        ("head", "body", "before"),
        [
            (JSON, b"null", ROWS),
            (JSON, b"[]\n", ROWS),
            (JSON, b'{"data": []}'.replace(b'"data": ', b""), ROWS),
            (HTML, b"<!DOCTYPE html><html><head></head><body></body></html>", PAGE),
            (JSON, b'{ "error": {"code": 17}}', ROWS),
            (JSON, b'\n{"errors": [{"message": "no"}], "data": null}', ROWS),
            (JSON, b'{"data":null,"errors":[{"message":"no"}]}', ROWS),
            (JSON, b'{"data": {"rows": null}, "errors": [ {"message": "no"}]}', ROWS),
            (JSON, b'{"jsonrpc": "2.0", "error": {"code": -32000}, "id": 1}', ROWS),
            (JSON, b'{"success": false, "message": "no"}', ROWS),
            (JSON, b'{"ok":false}', ROWS),
            (JSON, b'{"status": "error", "message": "no"}', ROWS),
            (JSON, b'{"statusCode": 503, "message": "no"}', ROWS),
            (JSON, b'{"result": null, "error": "no"}', ROWS),
            (head_of("Content-Type: text/plain", "Content-Length: 5"), b"Sorry.", PAGE),
            (JSON, ROWS[: len(ROWS) * 3 // 4 - 4], ROWS),
            (FEED, ITEMS[:4200], ITEMS),
        ],
    )
    def test_what_says_nothing_or_is_something_else_is_believed_the_third_time(
        self, head: ResponseHead, body: bytes, before: bytes
    ) -> None:
        kind = (head.first(b"content-type") or b"") if before != PAGE else b"text/html"
        page = stored(before)._replace(head=b"HTTP/1.1 200 OK\r\nContent-type: %b\r\n" % kind)
        goodness = Goodness()
        verdicts = [goodness.judge(b"", head, body, page, trouble=False) for _ in range(3)]
        assert verdicts == [Verdict.NOT_STORED] * 2 + [Verdict.GOOD]

    def test_a_smaller_page_that_says_something_is_good(self) -> None:
        page = stored(self.ROWS)._replace(
            head=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        )
        for body in (
            b'{"rows": [{"id": 1}]}', b'{"rows": [], "error": null}', b"[1]", b"7",
            b'{"status": "ok", "rows": []}', b'{"success": true}', b'{"code": 200}',
            b'{"data": [1], "errors": []}',
        ):  # fmt: skip
            assert Goodness().judge(b"", self.JSON, body, page, trouble=False) is Verdict.GOOD
        script = head_of("Content-Type: text/javascript", "Content-Length: 5")
        half = b"x" * 3000
        assert judged(half, half + b"}", script) is Verdict.GOOD, "scripts may end anyhow"

    def test_data_that_ends_with_an_error_text_is_a_failure(self) -> None:
        body = self.ROWS[:3000] + b"\nPHP Fatal error: Uncaught PDOException in /var/www/rows.php"
        assert judged(body, self.ROWS, self.JSON) is Verdict.FAILED

    def test_a_whole_one_in_between_begins_the_count_anew(self) -> None:
        goodness = Goodness()
        page = stored(PAGE)
        for whole in (PAGE, PAGE + b"!", PAGE[1:]):
            for _ in range(BELIEVED_AFTER - 1):
                verdict = goodness.judge(b"*/", HTML, b"", page, trouble=False)
                assert verdict is Verdict.NOT_STORED
            assert goodness.judge(b"*/", HTML, whole, page, trouble=False) is Verdict.GOOD
            page = page._replace(stored_at=page.stored_at + 1)  # that one is stored now
        assert goodness.judge(b"*/", HTML, b"short", page, trouble=False) is Verdict.GOOD

    def test_pages_are_counted_apart_and_not_without_end(self) -> None:
        goodness = Goodness()
        page = stored(PAGE)
        for number in range(TORSOS_MAX + 10):
            key = b"*/%d" % number
            assert goodness.judge(key, HTML, b"", page, trouble=False) is Verdict.NOT_STORED
        assert len(goodness.torsos) == TORSOS_MAX

    def test_an_empty_answer_may_be_followed_by_any(self) -> None:
        assert judged(b"", b"") is Verdict.GOOD
        assert judged(b"new", b"") is Verdict.GOOD

    @pytest.mark.parametrize("coding", ["gzip", "br"])
    @pytest.mark.parametrize("before", [None, PAGE])
    def test_what_is_cut_within_its_coding_is_never_stored(
        self, coding: str, before: bytes | None
    ) -> None:
        """Nobody could read it. Its last octets, which would tell its length, are any octets."""
        head = head_of(f"Content-Encoding: {coding}", "Connection: close")
        whole = compressed(random.Random(1).randbytes(2000) + PAGE, coding)
        for part in (1, len(whole) // 5, len(whole) // 2, len(whole) - 1):
            for _ in range(BELIEVED_AFTER):
                assert judged(whole[:part], before, head) is Verdict.NOT_STORED
        assert judged(whole, before, head) is Verdict.GOOD

    def test_several_members_and_what_follows_them_are_whole(self) -> None:
        head = head_of("Content-Encoding: gzip", "Connection: close")
        member = gzip.compress(PAGE)
        large = gzip.compress(bytes(FOLLOWED_BYTES_MAX * 2))
        for whole in (member * 2, member + bytes(512), large):
            assert judged(whole, None, head) is Verdict.GOOD
        assert judged(member + member[:-9], None, head) is Verdict.NOT_STORED

    def test_a_short_answer_with_a_length_is_whole(self) -> None:
        assert judged(self.HALF) is Verdict.GOOD


class TestTrouble:
    def test_no_much_smaller_answer_replaces_a_page_in_trouble(self) -> None:
        half = PAGE[: len(PAGE) // 2]
        assert judged(half, trouble=True) is Verdict.GOOD
        assert judged(half[:-1], trouble=True) is Verdict.NOT_STORED
        assert judged(half[:-1]) is Verdict.GOOD

    def test_trouble_lasts_some_seconds(self) -> None:
        goodness = Goodness()
        assert not goodness.in_trouble(0.0)
        goodness.failed(100.0)
        assert goodness.in_trouble(100.0 + TROUBLE_S - 0.1)
        assert not goodness.in_trouble(100.0 + TROUBLE_S)

    def test_a_url_that_is_broken_by_itself_is_no_trouble(self) -> None:
        """The scripts of all visitors ask for it every few seconds."""
        goodness = Goodness()
        goodness.failed(100.0, b"/poll", good_at=99.0)
        assert goodness.in_trouble(105.0)
        for now in range(105, 200, 5):
            goodness.failed(now, b"/poll", good_at=now - 1.0)
        assert not goodness.in_trouble(196.0)
        assert goodness.failed_lately(196.0), "it is still held back itself until it is whole"
        goodness.failed(200.0, b"/", good_at=199.0)
        assert goodness.in_trouble(201.0), "another one"
        goodness.failed(215.0, b"/", good_at=199.0)
        assert goodness.in_trouble(216.0), "nobody else got anything good"
        goodness.failed(215.0 + LATELY_S + 1, b"/", good_at=215.0 + LATELY_S)
        assert goodness.in_trouble(217.0 + LATELY_S), "long after the last time"

    def test_the_urls_that_fail_are_bounded(self) -> None:
        goodness = Goodness()
        for number in range(2 * FAILING_MAX):
            goodness.failed(1.0, b"/%d" % number)
        goodness.failed(2.0, b"/%d" % FAILING_MAX, good_at=1.5)  # the oldest that is remembered
        assert goodness.in_trouble(10.5)
        assert not goodness.in_trouble(11.5)


@given(st.binary(max_size=2000), st.binary(max_size=2000), st.booleans(), st.booleans())
def test_what_has_not_shrunk_is_good(
    body: bytes, before: bytes, trouble: bool, close: bool
) -> None:
    """The short way of a plain answer leaves out nothing that the judgement would find."""
    head = TestTorsos.CLOSE if close else HTML
    ends = PAGE_ENDS if before.endswith(PAGE_ENDS) else DATA_ENDS
    lost_end = before.endswith(ends) and not body.endswith(ends)
    if not has_shrunk(body, before) and not lost_end:
        assert judged(body, before, head, trouble=trouble) is Verdict.GOOD


@given(st.binary(max_size=5000))
def test_the_length_is_that_without_gzip(body: bytes) -> None:
    assert len(body) <= length_of(gzip.compress(body)) <= len(body) + 8
    assert length_of(body[:19]) == len(body[:19])
    members = gzip.compress(body) + gzip.compress(b"")
    assert length_of(members) >= len(members) - 20


# On the way of a request


def warmed(*targets: str, body: bytes = PAGE, **settings: Any) -> FakeProxy:
    proxy = FakeProxy(**settings)
    for target in targets or ("/",):
        proxy.client(get(target))
        proxy.upstream.sends(html(body))
    return proxy


def html(body: bytes, *fields: str) -> bytes:
    return reply(body, headers={"Content-Type": "text/html"} | dict(f.split(": ") for f in fields))


def asked(proxy: FakeProxy, answer: bytes, target: str = "/") -> bytes:
    client: FakePeer = proxy.client(get(target))
    proxy.upstream.sends(answer)
    return client.received()


def chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def test_a_broken_url_alone_keeps_no_page_from_being_replaced() -> None:
    site = Site(lambda asked: page("x" * 5000) if asked.path == "/" else page("", status="500 No"))
    site.ask()
    for number in range(30):
        site.ask("/poll", address=f"192.0.2.{number % 5}")
        site.ask("/", address=f"192.0.2.{100 + number}")
        site.proxy.advance(2.0)
    site.application = lambda asked: page("", status="301 Moved Permanently", Location="/new")
    assert site.ask(address="192.0.2.99").status == 301
    site.goes_down()
    assert site.ask().status == 301


@pytest.mark.parametrize("answer", [html(ERROR), chunked(ERROR)])
def test_an_error_page_is_not_shown_where_there_is_a_good_one(answer: bytes) -> None:
    proxy = warmed()
    for _ in range(2):
        got = asked(proxy, answer)
        assert (status_of(got), body_of(got)) == (200, PAGE)
        assert field(got, "cache-status") == "retter; hit; detail=failure-text"
    assert proxy.services.counters.upstream_errors["failure-text"] == 2  # type: ignore[index]
    assert body_of(asked(proxy, html(PAGE + b"!"))) == PAGE + b"!"
    proxy.assert_at_rest()


def test_an_error_page_is_a_failure_for_the_breaker() -> None:
    proxy = warmed("/a", "/b", "/c", "/d", "/e", "/f")
    proxy.advance(60)
    for target in ("/a", "/b", "/c", "/d", "/e"):
        asked(proxy, html(ERROR), target)
    assert proxy.services.breaker.circuit.state.value == "OPEN"
    client = proxy.client(get("/f"))
    assert body_of(client.received()) == PAGE, "without asking"


@pytest.mark.parametrize("seed", range(20))
def test_however_it_is_cut(seed: int) -> None:
    proxy = warmed()
    client = proxy.client(get())
    answer = chunked(ERROR)
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(1, len(answer)), rng.randrange(1, 6)))
    for piece in split_at(answer, cuts):
        proxy.upstream.sends(piece)
    assert body_of(client.received()) == PAGE
    proxy.assert_at_rest()


def test_where_nothing_is_stored_the_error_page_is_told_and_forgotten_in_trouble() -> None:
    proxy = warmed()
    asked(proxy, reply(b"no", status="500 Oops"))
    assert body_of(asked(proxy, html(ERROR), "/new")) == ERROR
    proxy.client(get("/new"))
    proxy.upstream.ends()
    proxy.settle()
    assert b"DB error" not in proxy.client(get("/new")).received()


def test_a_superseded_page_is_better_than_an_error_page() -> None:
    proxy = warmed()
    poster = proxy.client(b"POST / HTTP/1.1\r\nHost: site.example\r\nContent-Length: 0\r\n\r\n")
    proxy.upstream.sends(reply(b"done"))
    assert status_of(poster.received()) == 200
    assert body_of(asked(proxy, html(ERROR))) == PAGE


def test_who_has_emptied_a_cart_does_not_see_the_full_one() -> None:
    page = (
        b"<html><script>const texts = {saved: 'Your address was saved for the next order.',"
        b" failed: \"We're sorry, but something went wrong. Please try again, or write to us: we "
        b'answer in a day, on weekends in two days."}</script><body>%b</body></html>'
    )
    proxy = FakeProxy()
    client, asks = proxy.client(), get("/cart", headers={"Cookie": "PHPSESSID=" + "a1" * 10})
    for cart in (b"<p>a bicycle" * 400, b"nothing yet", b"nothing"):
        client.sends(asks)
        proxy.upstream.sends(reply(page % cart, headers={"Content-Type": "text/html"}))
        assert body_of(client.received()) == page % cart
    assert not proxy.services.counters.upstream_errors[Reason.FAILURE_TEXT]
    proxy.assert_at_rest()


def test_off_looks_for_nothing() -> None:
    proxy = warmed(failure_text=())
    assert body_of(asked(proxy, html(ERROR))) == ERROR


def test_own_texts_may_be_added() -> None:
    proxy = warmed(failure_text=("auto", "Die Werkstatt ist zu"))
    assert body_of(asked(proxy, html(b"<h1>die werkstatt ist zu</h1>"))) == PAGE
    assert body_of(asked(proxy, html(ERROR))) == PAGE


def shown_in_need(proxy: FakeProxy, target: str = "/") -> bytes:
    """Return what is shown when the application fails."""
    return body_of(asked(proxy, reply(b"no", status="500 Oops"), target))


@pytest.mark.parametrize("answer", [html(b""), chunked(b"")])
def test_an_empty_answer_does_not_replace_a_page_until_it_comes_again_and_again(
    answer: bytes,
) -> None:
    proxy = warmed()
    for _ in range(BELIEVED_AFTER - 1):
        assert status_of(asked(proxy, answer)) == 200
    proxy.advance(1)
    asked(proxy, html(PAGE))
    for _ in range(BELIEVED_AFTER - 1):
        asked(proxy, answer)
    assert shown_in_need(proxy) == PAGE
    proxy.advance(TROUBLE_S + 1)
    asked(proxy, answer)
    assert shown_in_need(proxy) == b""


def test_an_answer_that_ends_with_its_connection_may_have_lost_its_end() -> None:
    proxy = warmed()
    torso = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE[:1000]
    for _ in range(BELIEVED_AFTER - 1):
        client = proxy.client(get())
        proxy.upstream.sends(torso)
        proxy.upstream.ends()
        assert PAGE[:1000] in client.received(), "it may be all there is"
    assert shown_in_need(proxy) == PAGE


def test_a_blank_answer_is_none() -> None:
    """The line ends around the code of a script that died."""
    proxy = warmed()
    for _ in range(BELIEVED_AFTER - 1):
        assert body_of(asked(proxy, html(b"\n\n"))) == b"\n\n"
    assert shown_in_need(proxy) == PAGE


def test_half_a_compressed_page_replaces_none() -> None:
    proxy = warmed()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n"
    page = gzip.compress(random.Random(1).randbytes(5000) + PAGE)
    proxy.client(get())
    proxy.upstream.sends(head + page[: len(page) // 2])
    proxy.upstream.ends()
    assert shown_in_need(proxy) == PAGE


def test_an_error_page_is_compared_with_the_compressed_page_as_it_reads() -> None:
    proxy = FakeProxy()
    page = compressed(PAGE, "br")
    proxy.client(get("/", headers={"Accept-Encoding": "br"}))
    proxy.upstream.sends(html(page, "Content-Encoding: br"))
    error = ERROR + b"." * len(page)
    assert body_of(asked(proxy, html(error))) == PAGE


def test_a_page_without_its_articles_replaces_none_in_trouble() -> None:
    proxy = warmed("/", "/other")
    asked(proxy, reply(b"no", status="500 Oops"), "/other")
    bare = PAGE[:1000]
    assert body_of(asked(proxy, html(bare))) == bare
    assert shown_in_need(proxy) == PAGE
    proxy.advance(TROUBLE_S + 1)
    asked(proxy, html(bare))
    assert shown_in_need(proxy) == bare


@pytest.mark.parametrize("chunks", [False, True])
def test_a_page_that_dies_on_its_way_is_not_kept(chunks: bool) -> None:
    whole = b"<html>" + PAGE + b"</html>"
    proxy = warmed(body=whole)
    cut = whole[: len(whole) * 3 // 4]
    assert body_of(asked(proxy, html(cut))) == cut
    dies = cut + b"<b>Fatal error</b>:  Uncaught Error"
    got = asked(proxy, chunked(dies) if chunks else html(dies))
    assert body_of(got) == whole
    assert field(got, "cache-status") == "retter; hit; detail=failure-text"
    assert shown_in_need(proxy) == whole


def test_a_redirect_to_an_error_page_is_not_followed() -> None:
    proxy = warmed()
    away = {"Location": "/maintenance.html", "Set-Cookie": "seen=1"}
    got = asked(proxy, reply(b"", status="302 Found", headers=away))
    assert body_of(got) == PAGE
    assert shown_in_need(proxy) == PAGE
    proxy.assert_at_rest()


def test_a_redirect_in_trouble_replaces_no_page() -> None:
    proxy = warmed("/", "/other")
    asked(proxy, reply(b"no", status="500 Oops"), "/other")
    away = reply(b"", status="302 Found", headers={"Location": "/elsewhere"})
    assert status_of(asked(proxy, away)) == 302
    assert shown_in_need(proxy) == PAGE
    proxy.advance(TROUBLE_S + 1)
    asked(proxy, away)
    assert status_of(asked(proxy, reply(b"no", status="500 Oops"))) == 302


def test_a_late_answer_is_trouble() -> None:
    proxy = warmed()
    client = proxy.client(get())
    proxy.advance(6.0)
    assert body_of(client.received()) == PAGE  # patience
    proxy.upstream.sends(html(PAGE[:1000]))
    assert shown_in_need(proxy) == PAGE


@pytest.mark.parametrize(
    ("accept", "doubtful"),
    [("text/html", False), ("application/json", True), ("*/*", False)],
    ids=["another variant", "this variant", "anything"],
)
def test_a_page_that_is_stored_for_others_alone_is_nothing_to_compare_with(
    accept: str, doubtful: bool
) -> None:
    """The response goes the short way. Not so if an unsafe method has superseded what is stored."""
    proxy = FakeProxy(compress=())
    client = proxy.client(get("/page", headers={"Accept": "application/json"}))
    proxy.upstream.sends(reply(b'{"page": 1}'))
    client.sends(b"POST /page HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n")
    proxy.upstream.sends(reply(b"done"))
    services, now = proxy.services, proxy.loop.now
    asked = get("/page", headers={"Accept": accept, "Cookie": f"PHPSESSID={'5' * 32}"})
    parsed = services.heads.parse(asked, False, services.heads.request_memos[False, b"http"])
    assert services.store.find(parsed.identity, parsed.head, now) is None
    assert is_doubtful(services, parsed, None, HTML, b"body", now) is doubtful
    services.breaker.circuit.set_mode(now, Mode.OPEN)
    assert is_doubtful(services, parsed, None, HTML, b"body", now), "it may be a failure's text"


# -- What it costs


@pytest.mark.parametrize("size", [100, 10_000, 1_000_000])
def test_a_changed_page_is_judged_by_its_length_alone(size: int) -> None:
    """That is less than 1 us, whatever its size and however many texts there are."""
    services = FakeProxy().services
    request = services.heads.parse(get(), False, services.heads.request_memos[False, b"http"])
    body, same, large = b"b" * size, tuple(stored(b"a" * size)), tuple(stored(b"a" * 3 * size))
    assert instructions_of(lambda: is_doubtful(services, request, same, HTML, body, 0.0)) <= 40
    assert instructions_of(lambda: is_doubtful(services, request, large, HTML, body, 0.0)) <= 90
    whole, same = body + b"</html>", tuple(stored(b"a" * size + b"</html>"))
    assert instructions_of(lambda: is_doubtful(services, request, same, HTML, whole, 0.0)) <= 50


def test_a_text_is_looked_for_in_one_step() -> None:
    """In a page that has shrunk to less than half: the rest is a search of machine code."""

    def work(size: int, texts: int) -> int:
        goodness = Goodness([b"text %d" % number for number in range(texts)])
        body, before = b"x" * size, stored(b"y" * 50_000)
        return instructions_of(lambda: goodness.judge(b"*/", HTML, body, before, trouble=False))

    assert work(100, 30) == work(10_000, 30), "it does not grow with the page"
    assert work(100, 1030) - work(100, 30) <= 12 * 1000
