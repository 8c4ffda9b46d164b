"""Names of exported files, and what is left out."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.disk.export import NAME_BYTES_MAX, path_of

HTML = "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("url", "content_type", "file"),
    [
        (b"a.b/", HTML, "a.b/index.html"),
        (b"a.b/page", HTML, "a.b/page/index.html"),
        (b"a.b/page/", HTML, "a.b/page/index.html"),
        (b"a.b/page.html", HTML, "a.b/page.html"),
        (b"a.b/list?page=2", HTML, "a.b/list/index%3Fpage=2.html"),
        (b"a.b/s.css?v=1", "text/css", "a.b/s%3Fv=1.css"),
        (b"a.b:8080/api/x", "application/json", "a.b%3A8080/api/x.json"),
        (b"a.b/feed", "", "a.b/feed"),
        (b"/page", HTML, "site/page/index.html"),
        (b"a.b/%C3%A9t%C3%A9", HTML, "a.b/\u00e9t\u00e9/index.html"),
        (b"a.b/%FF", HTML, "a.b/%FF/index.html"),
        (b"a.b//x", HTML, "a.b/%/x/index.html"),
        # What would lead out, be hidden, or configure a web server.
        (b"a.b/../../etc/passwd", HTML, "a.b/%2E%2E/%2E%2E/etc/passwd/index.html"),
        (b"a.b/%2e%2e/x", HTML, "a.b/%2E%2E/x/index.html"),
        (b"a.b/..%2fx.html", HTML, "a.b/%2E.%2Fx.html"),
        (b"../x.html", HTML, "%2E%2E/x.html"),
        (b"a.b/.htaccess", "", "a.b/%2Ehtaccess"),
        (b"a.b/x%00y.html", HTML, "a.b/x%00y.html"),
        (b"a.b/con:x|y", HTML, "a.b/con%3Ax%7Cy/index.html"),
    ],
)
def test_a_url_has_one_file(url: bytes, content_type: str, file: str) -> None:
    assert "/".join(path_of(url, content_type)) == file


def test_a_long_name_is_cut_and_still_its_own() -> None:
    one, other = (path_of(b"a.b/%b%d.html" % (b"x" * 400, number), HTML)[-1] for number in (1, 2))
    assert one != other
    assert one.endswith(".html") and len(one) == NAME_BYTES_MAX


@given(st.binary(max_size=300), st.sampled_from(["", HTML, "application/json", "image/png"]))
def test_no_url_leads_out_of_the_folder(url: bytes, content_type: str) -> None:
    names = path_of(url, content_type)
    for name in names:
        assert name and not name.startswith(".") and len(name.encode()) <= NAME_BYTES_MAX
        assert not set(name) & set('/\\\0\r\n"<>|*?:') and name.isprintable()
    assert Path("/out").joinpath(*names).resolve().is_relative_to("/out")
