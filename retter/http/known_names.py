"""Names that the owner rules know: request fields and cookies that identify nobody, and sessions.

These lists decide what may be shared, so a name stands here only if it cannot be a credential.
Whole families are listed where every member is harmless, single names where a sibling is not:
`X-Forwarded-For` is, `X-Forwarded-User` and `X-Forwarded-Access-Token` (set by single-sign-on
proxies) are not; `CF-Ray` is, `CF-Access-Jwt-Assertion` is not. `From` is a robot's address (RFC
9110 section 10.1.2), and no proof of anything. `baggage` is missing because it may carry a user's
id. A name that is missing costs availability for its users; a name too many costs isolation.
"""

from typing import Final

# Request fields, lower case, that say nothing about who asks. A trailing * stands for the rest.
NEUTRAL_FIELDS: Final[tuple[bytes, ...]] = (
    # The target, negotiation, and the browser (RFC 9110 sections 7.2, 10.1, 12.5)
    b"host",
    b"accept",
    b"accept-charset",
    b"accept-datetime",
    b"accept-encoding",
    b"accept-language",
    b"user-agent",
    b"referer",
    b"origin",
    b"from",
    b"te",
    b"expect",
    b"max-forwards",
    b"date",
    b"dnt",
    b"priority",
    b"save-data",
    b"upgrade-insecure-requests",
    b"purpose",
    b"x-purpose",
    b"x-moz",
    b"early-data",
    b"service-worker",
    b"service-worker-navigation-preload",
    # Client hints and fetch metadata. Not sec-*: Sec-Token-Binding and Sec-Session-* identify.
    b"sec-ch-*",
    b"sec-fetch-*",
    b"sec-gpc",
    b"sec-purpose",
    b"sec-speculation-tags",
    b"sec-storage-access",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-extensions",
    b"device-memory",
    b"dpr",
    b"downlink",
    b"ect",
    b"rtt",
    b"width",
    b"viewport-width",
    b"content-dpr",
    # Caching, conditions, ranges (RFC 9111; RFC 9110 sections 13.1 and 14.2)
    b"cache-control",
    b"pragma",
    b"if-match",
    b"if-none-match",
    b"if-modified-since",
    b"if-unmodified-since",
    b"if-range",
    b"range",
    # The connection and the framing (RFC 9110 section 7.6.1)
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"http2-settings",
    # What a body is. A GET with a body is neither stored nor answered from the store.
    b"content-length",
    b"content-type",
    b"content-encoding",
    b"content-language",
    b"content-location",
    b"content-disposition",
    b"content-md5",
    b"content-digest",
    b"repr-digest",
    b"want-content-digest",
    b"want-repr-digest",
    b"digest",
    # Cross-origin preflight
    b"access-control-request-*",
    # Forwarding: the way the request took, never who logged in on it
    b"via",
    b"forwarded",
    b"x-forwarded-for",
    b"x-real-ip",
    b"cdn-loop",
    b"cf-ray",
    b"cf-ew-via",
    b"cf-worker",
    # Tracing and queueing
    b"tracestate",
    b"b3",
    b"x-b3-traceid",
    b"x-b3-spanid",
    b"x-b3-parentspanid",
    b"x-b3-sampled",
    b"x-b3-flags",
    b"x-datadog-parent-id",
    b"x-datadog-sampling-priority",
    b"x-datadog-origin",
    b"x-request-start",
    b"x-queue-start",
    b"x-turbo-request-id",
    b"x-envoy-*",
)

# Ids that a request is given on its way, or by its client, to find it in logs again. A page that
# shows one is not stored for everyone if the client may have chosen it.
REQUEST_ID_FIELDS: Final[tuple[bytes, ...]] = (
    b"x-request-id",
    b"x-correlation-id",
    b"request-id",
    b"correlation-id",
    b"x-trace-id",
    b"traceparent",
    b"x-amzn-trace-id",
    b"x-cloud-trace-context",
    b"uber-trace-id",
    b"sentry-trace",
    b"x-datadog-trace-id",
    b"x-amz-cf-id",
    b"x-azure-ref",
    b"x-varnish",
    b"fly-request-id",
    b"cdn-requestid",
    b"x-vercel-id",
    b"x-akamai-request-id",
)

# Where the client is, as CDNs tell it. From others than trusted proxies they are dropped.
ADDRESS_FIELDS: Final[tuple[bytes, ...]] = (
    b"cf-connecting-ip",
    b"cf-connecting-ipv6",
    b"cf-pseudo-ipv4",
    b"true-client-ip",
    b"client-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"fastly-client-ip",
    b"fly-client-ip",
    b"x-original-forwarded-for",
    b"x-envoy-external-address",
    b"x-azure-clientip",
    b"x-azure-socketip",
    b"x-appengine-user-ip",
    b"x-vercel-forwarded-for",
    b"do-connecting-ip",
    b"x-nf-client-connection-ip",
    b"cloudfront-viewer-address",
    b"x-remote-ip",
    b"x-remote-addr",
    b"x-originating-ip",
)
COUNTRY_FIELDS: Final[frozenset[bytes]] = frozenset(
    (
        b"cf-ipcountry",
        b"cloudfront-viewer-country",
        b"x-vercel-ip-country",
        b"x-appengine-country",
        b"x-country-code",
        b"x-geo-country",
        b"x-client-geo-country",
        b"fly-region",
        b"x-geoip-country",
    )
)
GEO_FIELDS: Final[tuple[bytes, ...]] = (
    *COUNTRY_FIELDS,
    b"cf-ipcity",
    b"cf-ipcontinent",
    b"cf-iplatitude",
    b"cf-iplongitude",
    b"cf-region",
    b"cf-region-code",
    b"cf-metro-code",
    b"cf-postal-code",
    b"cf-timezone",
    b"cloudfront-viewer-city",
    b"cloudfront-viewer-country-name",
    b"cloudfront-viewer-country-region",
    b"cloudfront-viewer-latitude",
    b"cloudfront-viewer-longitude",
    b"cloudfront-viewer-time-zone",
    b"cloudfront-viewer-metro-code",
    b"cloudfront-viewer-postal-code",
    b"cloudfront-viewer-asn",
    b"x-vercel-ip-city",
    b"x-vercel-ip-country-region",
    b"x-vercel-ip-latitude",
    b"x-vercel-ip-longitude",
    b"x-vercel-ip-timezone",
    b"x-appengine-region",
    b"x-appengine-city",
    b"x-appengine-citylatlong",
)

# Fields that identify nobody but ask for another answer at the same URL, mostly without a Vary
# that says so: a page fragment instead of the page, a redirect from http to https, links with
# another host in them. Their values separate variants, so that nobody gets a fragment for a page,
# a redirect loop, or a page that somebody else filled with a forged host.
SHAPE_FIELDS: Final[tuple[bytes, ...]] = (
    b"x-requested-with",
    b"x-pjax",
    b"hx-request",
    b"hx-boosted",
    b"hx-target",
    b"turbo-frame",
    b"x-inertia",
    b"x-forwarded-proto",
    b"x-forwarded-scheme",
    b"x-forwarded-protocol",
    b"x-forwarded-ssl",
    b"x-url-scheme",
    b"x-scheme",
    b"front-end-https",
    b"cf-visitor",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-server",
    b"x-forwarded-prefix",
)

# Cookies whose value is the session, or a login that outlives it: the other cookies of a request
# with one of these do not matter, but for those that look like credentials. So each value must be
# unguessable and differ from person to person. A name that is missing costs little: then all
# cookies together are the owner. That is why constants (wordpress_test_cookie), settings
# (.AspNetCore.Culture), passwords of pages (wp-postpass_*), CSRF cookies and vague names (token,
# auth) are not here. What has one of these names counts only if it may be a secret (cookies.py),
# and alone only if the application has been seen to set it (sessions.py).
DEFAULT_SESSION_COOKIES: Final[tuple[bytes, ...]] = (
    b"PHPSESSID",
    b"PHPSESS*",  # PHP, Symfony
    b"JSESSIONID",
    b"JSESSIONID*",  # Java servlets, Spring
    b"SESSION",
    b"remember-me",  # Spring Session, Spring Security
    b"ci_session",
    b"ci_session*",  # CodeIgniter
    b"sessionid",  # Django
    b"_session_id",
    b"remember_user_token",  # Rails, Devise
    b"*_session",
    b"*-session",  # Rails, Laravel, MediaWiki
    b"laravel_session",
    b"remember_web_*",  # Laravel
    b"connect.sid",  # Express
    b"session",
    b"remember_token",  # Flask, Flask-Login
    b"symfony",
    b"REMEMBERME",  # Symfony
    b"ASP.NET_SessionId",
    b"ASPSESSIONID*",
    b".ASPXAUTH",  # ASP and ASP.NET
    b".AspNet.ApplicationCookie",
    b".AspNet.ApplicationCookie*",
    b".AspNetCore.Session",
    b".AspNetCore.Cookies",
    b".AspNetCore.CookiesC*",
    b".AspNetCore.Identity.Application",
    b".AspNetCore.Identity.ApplicationC*",
    b"wordpress_logged_in_*",
    b"wordpress_sec_*",  # WordPress
    b"wp_woocommerce_session_*",
    b"SESS*",
    b"SSESS*",  # Drupal
    b"fe_typo_user",
    b"be_typo_user",  # TYPO3
    b"MoodleSession*",  # Moodle
    b"next-auth.session-token",
    b"next-auth.session-token.*",
    b"__Secure-next-auth.session-token",  # Auth.js
    b"authjs.session-token",
    b"authjs.session-token.*",
)

# What the name of a cookie has in it, in any case, that may say who somebody is beside a session.
CREDENTIAL_WORDS: Final[tuple[bytes, ...]] = (
    b"auth",
    b"token",
    b"jwt",
    b"user",
    b"login",
    b"remember",
    b"member",
    b"account",
    b"uid",
)

# And of a cookie that belongs to forms: it is no login, and changes with none.
CSRF_WORDS: Final[tuple[bytes, ...]] = (
    b"csrf",
    b"xsrf",
    b"antiforgery",
    b"requestverification",
)

# Cookies that no application reads to know its user: analytics, advertising, consent, stickiness.
# As narrow as their makers allow: _ga* would also swallow the cookies of an application "gallery".
# cf_clearance is missing on purpose: it is a proof that somebody earned.
IGNORABLE_COOKIES: Final[tuple[bytes, ...]] = (
    b"_ga",
    b"_ga_*",
    b"_gac_*",
    b"_gaexp",
    b"_gaexp_rc",
    b"_gat",
    b"_gat_*",
    b"_gid",
    b"_gcl_*",
    b"_dc_gtm_*",
    b"__gads",
    b"__gpi",
    b"__gsas",
    b"__eoi",
    b"__utma",
    b"__utmb",
    b"__utmc",
    b"__utmt",
    b"__utmt_*",
    b"__utmv",
    b"__utmx",
    b"__utmz",
    b"_fbp",
    b"_fbc",
    b"_clck",
    b"_clsk",
    b"_uetsid",
    b"_uetvid",
    b"_ttp",
    b"_tt_enable_cookie",
    b"_pin_unauth",
    b"hubspotutk",
    b"__hstc",
    b"__hssc",
    b"__hssrc",
    b"_parsely_session",
    b"_parsely_visitor",
    b"_ym_uid",
    b"_ym_d",
    b"_ym_isad",
    b"_ym_visorc*",
    b"mp_*_mixpanel",
    b"_hjid",
    b"_hjSession*",
    b"_hjIncluded*",
    b"_hjFirstSeen",
    b"_hjAbsolute*",
    b"_hjTLDTest",
    b"_hjUser*",
    b"_hjCached*",
    b"_hjLocal*",
    b"_hjRecording*",
    b"_hjClosed*",
    b"_hjDone*",
    b"_hjShown*",
    b"_hjMinimized*",
    b"_hjViewport*",
    b"_hjHas*",
    b"_hjptid",
    b"_pk_id*",
    b"_pk_ses*",
    b"_pk_ref*",
    b"_pk_cvar*",
    b"_pk_hsr*",
    b"_pk_testcookie*",
    b"mtm_consent",
    b"mtm_consent_removed",
    b"mtm_cookie_consent",
    b"OptanonConsent",
    b"OptanonAlertBoxClosed",
    b"CookieConsent",
    b"cookieconsent_status",
    b"cookieconsent_dismissed",
    b"euconsent",
    b"euconsent-v2",
    b"eupubconsent-v2",
    b"cc_cookie",
    b"cookie_notice_accepted",
    b"cookielawinfo-checkbox-*",
    b"viewed_cookie_policy",
    b"cookieyes-consent",
    b"cmplz_*",
    b"borlabs-cookie",
    b"moove_gdpr_popup",
    b"wordpress_test_cookie",
    b"__cf_bm",
    b"_cfuvid",
    b"__cflb",
    b"AWSALB",
    b"AWSALBCORS",
)

# Words in User-Agent by which crawlers and agents of language models say what they are, in lower
# case. docs/fairness.md has the page of each operator that documents them.
CRAWLER_WORDS: Final = (
    "googlebot", "googleother", "google-cloudvertexbot", "storebot-google", "bingbot", "applebot",
    "yandexbot", "baiduspider", "duckduckbot", "duckassistbot", "petalbot", "seznambot",
    "sogou web spider", "360spider", "yisouspider", "qwantbot", "mojeekbot",
    "archive.org_bot",
    "gptbot", "oai-searchbot", "oai-adsbot", "chatgpt-user", "claudebot", "claude-user",
    "claude-searchbot", "ccbot", "perplexitybot", "perplexity-user", "bytespider", "tiktokspider",
    "amazonbot", "amzn-searchbot", "amzn-user", "meta-externalagent", "meta-externalfetcher",
    "meta-externalads", "meta-webindexer", "facebookbot", "mistralai-user", "mistralai-index",
    "mistralai-training", "diffbot", "timpibot", "ai2bot", "imagesiftbot", "omgili", "youbot",
    "semrushbot", "ahrefsbot", "mj12bot", "dotbot", "blexbot", "dataforseobot", "barkrowler",
    "serpstatbot", "scrapy",
)  # fmt: skip

# What MySQL, MariaDB, PostgreSQL, WordPress and PHP say where a page should be (goodness.py).
FAILURE_TEXTS: Final = (
    "Error establishing a database connection", "There has been a critical error on this website",
    "DB error:", "Too many connections", "max_user_connections", "SQLSTATE[", "PDOException",
    "mysqli_sql_exception", "mysqli_connect():", "server has gone away",
    "Lost connection to MySQL server", "Can't connect to MySQL server",
    "Can't connect to local", "Can't connect to server on", "Lock wait timeout exceeded",
    "Deadlock found when trying", "too many clients already",
    "remaining connection slots are reserved", "could not connect to server",
    "the database system is starting up", "the database system is shutting down",
    "server closed the connection unexpectedly", "<b>Fatal error</b>:", "<b>Parse error</b>:",
    "PHP Fatal error:", "Fatal error: Uncaught", "Allowed memory size of", "Out of memory",
    "Maximum execution time of",
)  # fmt: skip
