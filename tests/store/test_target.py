"""What a target means, and that remembering it changes nothing."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retter.breaker import route_of as real_route_of
from retter.http.known_names import DEFAULT_SESSION_COOKIES
from retter.http.message import HeadForm, RequestHead
from retter.store import personal
from retter.store import target as target_module
from retter.store.owner import OwnerRules
from retter.store.policy import asks_for_change, identified, identify
from retter.store.target import (
    PASSWORD_WITHIN_BYTES,
    SHAPES_MAX,
    TARGET_BYTES_REMEMBERED_MAX,
    TARGETS_MAX,
    Targets,
    body_changes_person,
    changes_person,
    changes_something,
    may_change_person,
    target_of,
)
from tests.support.compiled import counts_lines
from tests.support.tracing import untraced
from tests.support.work import cpu_s_of, instructions_of

RULES = OwnerRules(secret=b"0123456789abcdef", ignore_params=(b"utm_*",), never_store=(b"/buy*",))


def request(
    target: bytes, host: bytes = b"shop.example", method: bytes = b"GET", cookie: bytes = b""
) -> RequestHead:
    fields = ((b"cookie", cookie),) if cookie else ()
    return RequestHead(method, target, HeadForm(host=host), fields, fields=fields)


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


EXACT = OwnerRules(
    secret=b"0123456789abcdef", session_cookies=(*DEFAULT_SESSION_COOKIES, b"s7", b"key*")
)


def breaker_route_of(request: RequestHead) -> bytes:
    return real_route_of(request.method, request.target)


# Numbers, and what they may stand beside: names with digits, sessions, words that change something.
NUMBERED = st.lists(
    st.sampled_from(
        [
            b"/", b"/", b"v1", b"7", b"42", b"2026", b"0123456789", b"deadbeef", b"articles", b"x",
            b"logout", b".php", b"?", b"?page=", b"&", b"&s7=", b"&s8=", b"&key1=", b"&a1=", b"=",
            b"%37", b";jsessionid=", b"&_token=", b"nonce1=", b"-", b"#",
        ]
    ),
    max_size=9,
).map(lambda pieces: b"/" + b"".join(pieces))  # fmt: skip


def other_digits(target: bytes, by: int) -> bytes:
    """Return a target of the same shape."""
    digits = b"0123456789"
    return target.translate(bytes.maketrans(digits, digits[by:] + digits[:by]))


@untraced
@settings(max_examples=400)
@given(
    shapes=st.lists(NUMBERED, min_size=1, max_size=3),
    asked=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(0, 9),
            st.sampled_from([b"shop.example", b"SHOP.example", b"a/b"]),
            st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"]),
        ),
        min_size=3,
        max_size=12,
    ),
)
@example(
    shapes=[b"/v1/articles/42?page=7"],
    asked=[(0, by, b"shop.example", b"GET") for by in range(4)],
)
@example(
    shapes=[b"/articles/42/v1?page=7"],
    asked=[(0, by, b"shop.example", b"GET") for by in range(4)],
)
@example(  # a logout, behind targets that differ from it only in digits
    shapes=[b"/d%c3%a9connexion"],
    asked=[(0, by, b"shop.example", b"GET") for by in (1, 2, 3, 0)],
)
@example(shapes=[b"/saml2/x.y/sls"], asked=[(0, by, b"a/b", b"GET") for by in (1, 2, 3, 0)])
@example(shapes=[b"/a?s7=1"], asked=[(0, by, b"shop.example", b"GET") for by in (1, 1, 0)])
def test_a_target_of_a_remembered_shape_means_the_same(
    shapes: list[bytes], asked: list[tuple[int, int, bytes, bytes]]
) -> None:
    targets = Targets(EXACT, breaker_route_of, digits_alike=True)
    for shape, by, host, method in asked:
        head = request(other_digits(shapes[shape % len(shapes)], by), host, method)
        found = identified(head, targets.of(head), EXACT, limit_head=True, apart=b"")
        assert found == identify(head, EXACT, breaker_route_of, limit_head=True)


@pytest.mark.parametrize(
    ("target", "is_remembered"),
    [
        (b"/articles/%d?page=%d", True),
        (b"/v1/articles/%d?page=%d", True),
        (b"/articles/%d/v1?page=%d", False),
        (b"/articles/%d?page1=%d", False),
        (b"/articles/%d?jsessionid=%d", False),
        (b"/articles/%d/logout?page=%d", False),
    ],
)
def test_a_shape_is_remembered_if_its_digits_do_not_matter(
    target: bytes, is_remembered: bool
) -> None:
    targets = Targets(EXACT, breaker_route_of, digits_alike=True)
    for number in range(11, 14):
        targets.of(request(target % (number, number)))
    assert len(targets) == is_remembered


@pytest.mark.parametrize("before", [b"/%b", b"/a/%b/b", b"/?%b", b"/?a=%b&b=1", b"/?a=1;%b=2"])
def test_the_quick_search_misses_no_logout_and_no_token(before: bytes) -> None:
    names = [*target_module._LOGOUTS, *personal._NONCE_NAMES, *personal._NONCE_WORDS, b"a[_token]"]
    for name in names:
        one = before % name
        path, _, query = one.partition(b"?")
        if target_module._names_logout(path, query) or (query and personal.carries_nonce(query)):
            assert target_module._may_change(one), one


def test_remembered_shapes_are_bounded() -> None:
    targets = Targets(EXACT, breaker_route_of, digits_alike=True)
    for number in range(2 * SHAPES_MAX):
        name = b"".join([bytes([97 + int(digit)]) for digit in str(number)])
        for page in range(2):
            targets.of(request(b"/%b/%d" % (name, page)))
        assert len(targets) <= SHAPES_MAX
    assert targets


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
        (b"/logout-all", True),
        (b"/account/sign_out_all", True),
        (b"/user_logoutall.do", True),
        (b"/?action=logout-all", True),
        (b"/session/destroy", True),
        (b"/sessions/destroy.php?x=1", True),
        (b"/x.y/session/destroy/", True),
        (b"/exit", True),
        (b"/user/Exit/", True),
        (b"/profile.php/exit", True),
        (b"/?_switch_user=bob", True),
        (b"/admin?a=b&_switch_user=_exit", True),
        (b"/sign-off", True),
        (b"/logoutAction.do", True),
        (b"/LogoutServlet", True),
        (b"/signout-oidc", True),
        (b"/wiki/Special:Logout", True),
        (b"/?cmd=_logout", True),
        (b"/D%C3%A9connexion", True),
        (b"/fr/deconnecter.php", True),
        (b"/Salir", True),
        (b"/sair/", True),
        (b"/wylogowanie", True),
        (b"/session/end", True),
        (b"/auth/terminate/", True),
        (b"/disconnect", True),
        (b"/saml/slo", True),
        (b"/saml2/idp/sls?SAMLRequest=abc", True),
        (b"/do?form_key=abc", True),
        (b"/do?sesskey=abc", True),
        (b"/do?_authenticator=abc", True),
        (b"/do?securitytoken=abc", True),
        (b"/do?my_post_key=abc", True),
        (b"/do?__RequestVerificationToken=abc", True),
        (b"/slo", False),
        (b"/end", False),
        (b"/session/ending", False),
        (b"/sairaa", False),
        (b"/disconnect/guide", False),
        (b"/logout-allowed", False),
        (b"/posts/destroy", False),
        (b"/session/destroyed", False),
        (b"/exit/polls", False),
        (b"/exits", False),
        (b"/a?b=exit", False),
        (b"/?switch_user=bob", False),
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
    "part",
    [
        b"&", b"&s", b"&d", b"a&", b"/", b"/l", b"/se", b"/a-", b"=", b"=/", b"?=", b"?", b"a=",
        b"s", b"o", b"lo", b"3", b"=abcdefghijklmnop", b"/abcdefghijklmnop-",
    ],
)  # fmt: skip
@pytest.mark.parametrize("start", [b"/", b"/?"])
@untraced
def test_no_target_costs_more_than_its_octets(start: bytes, part: bytes) -> None:
    """16 KiB of anything take at most 7 times what a loop over them does; it was 80 for slashes."""
    octets = 16 * 1024
    target = start + (part * octets)[:octets]
    asked = request(target, cookie=b"PHPSESSID=0123456789abcdef0123456789abcdef")
    identity = identify(asked, RULES)

    def judge() -> None:
        target_of(asked, RULES)
        asks_for_change(identity, asked, RULES)

    loop_s = cpu_s_of(lambda: [octet for octet in target])  # noqa: C416 - the loop is meant
    assert cpu_s_of(judge) < 16 * loop_s


@pytest.mark.parametrize("param", [b"srf&", b"a&", b"a-;_token", b"logou;"])
def test_too_many_parameters_are_not_read(param: bytes) -> None:
    """Nothing is stored for such a target, so nothing of it has to be known."""
    target = b"/?" + param * 4000
    assert changes_something(target, RULES)
    assert instructions_of(lambda: changes_something(target, RULES)) < 1000


@pytest.mark.parametrize(
    "target",
    [
        b"/login", b"/Login.aspx", b"/wp-login.php", b"/users/sign_in", b"/a/log-in/",
        b"/x?a=signin",
        b"/x?logout", b"/x?do=user.logoff&b", b"/signon;v=1", b"/session", b"/api/sessions/?x",
        b"/api/auth", b"/authenticate",
        b"/logout-all", b"/session/destroy", b"/exit?x", b"/?_switch_user=_exit",
        b"/oauth/callback?code=a&state=b", b"/auth/google/callback", b"/saml/acs", b"/signin-oidc",
        b"/?a=b&ticket=ST-1-a", b"/magic-link/eyJ", b"/login/magic?token=a",
        b"/admin/users/5/impersonate", b"/impersonate/5", b"/accounts/switch",
        b"/users/stop_impersonating", b"/impersonate?id=5", b"/hijack/release/",
        b"/switch_user?scope_identifier=user_5", b"/complete/google/?state=a&code=b",
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
        b"/auth/key",
        b"/x?loginname=a",
        b"/logins",
        b"/callbacks",
        b"/callback/form",
        b"/?ticket=17",
        b"/?zipcode=17&state=CA",
        b"/?code=17&estate=big",
        b"/states/impersonating-others",
        b"/switch",
    ],
)
def test_a_target_is_named_otherwise(target: bytes) -> None:
    assert not changes_person(target)


def test_what_a_target_is_named_as_is_remembered_unless_it_is_long() -> None:
    """It is asked for each form, and searching takes a quarter of what a form costs."""
    before = target_module._remembered_change.cache_info()
    short, long = b"/forms/remembered", b"/login?" + b"x" * TARGET_BYTES_REMEMBERED_MAX
    for _ in range(2):
        assert not changes_person(short)
        assert changes_person(long)
    after = target_module._remembered_change.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (1, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"user=alice&password=x",
        b"user%5Bpassword%5D=x",
        b"user[pass]=x",
        b"os_Passwd=x&a=b",
        b"passwort=x",
        b"pass2=x",
        b"log=alice&pwd=x",
        b"txtPwd=x",
        b"USER=A&PASSWORD=x",
        b"utilisateur=a&mot_de_passe=x",
        b"usuario=a&senha=x",
        b'{"user":"alice","password":"x"}',
        b'{"Pass" : "x"}',
        b'--x\r\nContent-Disposition: form-data; name="user_password"\r\n\r\nx\r\n--x--',
        b'--x\r\nContent-Disposition: form-data; name="pass"; x=y\r\n\r\nx\r\n--x--',
        b"benutzer=a&kennwort=x",
        b"usuario=a&contrasena=x",
        b"usuario=a&contrase%C3%B1a=x",
        b'{"usuario":"a","clave":"x"}',
        b"naam=a&wachtwoord=x",
        b"login=a&haslo=x",
        b"jmeno=a&heslo=x",
        b"kullanici=a&sifre=x",
        b"action=logout",
        b"logout=Abmelden",
        b"a=b&do=signOut&c=d",
        b'{"method":"user.logout","id":1}',
        b'{"query":"mutation($p:String!){login(password:$p){id}}"}',
        b'{"query":"mutation($t:String!){login(token:$t){id}}"}',
        b'{"query":"mutation { logout { ok } }"}',
        b'{"query":"mutation M {\\n  signOutUser\\n}"}',
        b'{"query":"mutation { signIn(provider: \\"g\\", code: \\"x\\") { id } }"}',
        b'{"query":"mutation{login (otp:\\"123456\\"){id}}"}',
        b'--x\r\nContent-Disposition: form-data; name="action"\r\n\r\nlogout\r\n--x--',
        b"SAMLResponse=PHNhbWw%2B&RelayState=/",
        b"code=abc&id_token=eyJ&state=x",
        b"code=0.A" + b"x" * 1500 + b"&id_token=eyJ&state=x&session_state=y",
        b"credential=eyJhbGciOi&g_csrf_token=x",
        b"__VIEWSTATE=" + b"x" * (PASSWORD_WITHIN_BYTES - 100) + b"&ctl00$Password=x",
    ],
)
def test_a_body_logs_in_or_out_or_gives_a_password(body: bytes) -> None:
    assert body_changes_person(body)
    assert may_change_person(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"passengers=2",
        b"cpwdx=2",
        b"senhas=2",
        b'"pwd"',
        b"boarding_pass_id=2",
        b"text=my+password+is+lost",
        b"text=how+do+I+logout",
        b"text=logout+does+not+work",
        b'{"text": "logout does not work"}',
        b"logouts=2",
        b"checkout=1&standoff=2",
        b"credential=17",
        b'{"a":"password"}',
    ],
)
def test_a_body_changes_nobody(body: bytes) -> None:
    assert not body_changes_person(body)
    assert not body_changes_person(body + b"x" * PASSWORD_WITHIN_BYTES + b"&password=x")


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
