"""What a target means, and that remembering it changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.http.message import Framing, RequestHead
from retter.store.owner import OwnerRules
from retter.store.policy import identified, identify
from retter.store.target import (
    TARGET_BYTES_REMEMBERED_MAX,
    TARGETS_MAX,
    Targets,
    changes_person,
    changes_something,
    target_of,
)
from tests.support.compiled import counts_lines
from tests.support.work import instructions_of

RULES = OwnerRules(secret=b"0123456789abcdef", ignore_params=(b"utm_*",), never_store=(b"/buy*",))


def request(
    target: bytes, host: bytes = b"shop.example", method: bytes = b"GET", cookie: bytes = b""
) -> RequestHead:
    fields = ((b"cookie", cookie),) if cookie else ()
    return RequestHead(
        method, target, True, host, fields, Framing.NONE, 0, True, False, b"", False, b"", fields
    )


def route_of(request: RequestHead) -> bytes:
    return b"%b %b" % (request.method, request.target.partition(b"?")[0])


TARGETS = st.lists(
    st.sampled_from(
        [
            b"/", b"a", b"logout", b"buy", b"?", b"&", b";", b"jsessionid=", b"PHPSESSID=", b"x",
            b"utm_source=1", b"_token=1", b"x[_token]=1", b"user.", b"sign_out", b"=",
            b"0123456789abcdef0123456789",
        ]
    ),
    max_size=8,
).map(lambda pieces: b"/" + b"".join(pieces))  # fmt: skip


@given(
    asked=st.lists(
        st.builds(
            request,
            TARGETS,
            st.sampled_from([b"shop.example", b"SHOP.example", b"a/b", b""]),
            st.sampled_from([b"GET", b"HEAD", b"POST"]),
            st.sampled_from([b"", b"PHPSESSID=0123456789abcdef; _ga=1", b"theme=dark"]),
        ),
        max_size=6,
    )
)
def test_a_remembered_target_means_the_same(asked: list[RequestHead]) -> None:
    targets = Targets(RULES, route_of)
    for head in (*asked, *asked, *asked):
        found = identified(head, targets.of(head), RULES, limit_head=True, apart=b"https")
        assert found == identify(head, RULES, route_of, limit_head=True, apart=b"https")


def test_a_host_and_a_target_are_not_mixed_up() -> None:
    targets = Targets(RULES, route_of)
    for _ in range(3):
        odd, plain = targets.of(request(b"/c", b"a/b")), targets.of(request(b"/b/c", b"a"))
        assert odd.url == plain.url
        assert plain.may_be_answered and not odd.may_be_answered


def test_a_target_is_remembered_when_it_comes_again() -> None:
    targets = Targets(RULES, route_of)
    head = request(b"/articles/7?page=2")
    first, second, third = targets.of(head), targets.of(head), targets.of(head)
    assert first is not second, "most never come again"
    assert second is third


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        (b"/log_out", True),
        (b"/users/sign_out", True),
        (b"/index.php?option=com_users&task=user.logout", True),
        (b"/?user.logout", True),
        (b"/p?search[_token]=abc", True),
        (b"/p?search%5B_token%5D=abc", True),
        (b"/p?task=user.logouts", False),
        (b"/p?version=1.2", False),
    ],
)
def test_what_names_a_logout_or_a_token_is_not_answered_from_the_store(
    target: bytes, *, changes: bool
) -> None:
    assert target_of(request(target), RULES).may_be_answered is not changes
    assert changes_something(target, RULES) is changes


@pytest.mark.parametrize(
    "target",
    [
        b"/login", b"/Login.aspx", b"/wp-login.php", b"/users/sign_in", b"/a/log-in/",
        b"/x?a=signin",
        b"/x?logout", b"/x?do=user.logoff&b", b"/signon;v=1", b"/session", b"/api/sessions/?x",
    ],
)  # fmt: skip
def test_a_target_is_named_as_a_login_or_logout(target: bytes) -> None:
    assert changes_person(target)


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/login-help",
        b"/catalog/in",
        b"/blogin",
        b"/sessions/7",
        b"/x?loginname=a",
        b"/logins",
    ],
)
def test_a_target_is_named_otherwise(target: bytes) -> None:
    assert not changes_person(target)


def test_what_is_remembered_is_bounded() -> None:
    targets = Targets(RULES, route_of)
    heads = [request(b"/%d" % number) for number in range(2 * TARGETS_MAX)]
    for head in heads:
        targets.of(head)
        targets.of(head)
    assert 0 < len(targets) <= TARGETS_MAX
    long = request(b"/" + b"x" * TARGET_BYTES_REMEMBERED_MAX)
    assert targets.of(long) is not targets.of(long) is not targets.of(long)


@counts_lines
def test_a_target_that_comes_again_costs_a_look() -> None:
    targets = Targets(RULES, route_of)
    head = request(b"/articles/7?page=2&sort=price")
    anew = instructions_of(lambda: target_of(head, RULES, route_of))
    targets.of(head)
    targets.of(head)
    assert instructions_of(lambda: targets.of(head)) < anew / 4
