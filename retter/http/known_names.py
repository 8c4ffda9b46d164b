"""Names that the owner rules know: request fields and cookies that identify nobody, and sessions.

These lists decide which responses may be shared, so they contain a name only if it cannot be a
credential. A whole family of names is listed if every member is harmless; otherwise single names
are listed. For example, `X-Forwarded-For` is listed, but `X-Forwarded-User` and
`X-Forwarded-Access-Token` (set by single-sign-on proxies) are not; `CF-Ray` is listed, but
`CF-Access-Jwt-Assertion` is not. `From` is a robot's address (RFC 9110 section 10.1.2) and proves
nothing. `baggage` is not listed because it may contain a user's id. A missing name reduces
availability for its users; a wrong name breaks the isolation between users.
"""

from typing import Final

# Request fields, in lower case, that do not identify the client. A trailing * matches any text.
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
    b"alt-used",  # Firefox over HTTP/3 (RFC 7838 section 5)
    b"available-dictionary",  # its codings are never offered to the application (RFC 9842)
    b"dictionary-id",
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
    # Descriptions of a body. A GET with a body is neither stored nor answered from the store.
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
    # Forwarding: the path of the request, never the user who is logged in
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
    b"x-b3-spanid",
    b"x-b3-parentspanid",
    b"x-b3-sampled",
    b"x-b3-flags",
    b"x-datadog-parent-id",
    b"x-datadog-sampling-priority",
    b"x-datadog-origin",
    b"x-request-start",
    b"x-queue-start",
    b"x-timer",  # Fastly
    b"x-turbo-request-id",
    b"x-envoy-*",
)

# Request ids, set by a proxy or by the client, to find a request in logs. A page that contains one
# is not stored for everyone if the client may have chosen the id.
REQUEST_ID_FIELDS: Final[tuple[bytes, ...]] = (
    b"x-request-id",
    b"x-correlation-id",
    b"request-id",
    b"correlation-id",
    b"x-trace-id",
    b"x-b3-traceid",
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
    b"x-arr-log-id",
    b"x-appgw-trace-id",  # Azure
    b"x-nf-request-id",  # Netlify
    b"rndr-id",  # Render
    b"x-railway-request-id",
    b"x-kong-request-id",
    b"x-amzn-requestid",
    b"cf-request-id",
    b"eagleeye-traceid",
    b"eagleid",  # Alibaba
    b"x-cdn-request-id",
    b"elastic-apm-traceparent",
)

# The location of the client according to a CDN. They are dropped unless the peer is a trusted
# proxy.
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

# Fields of scripts that put the response into the page that is shown. (X-Requested-With is not one
# of them: apps on Android send it with each page, with their own name.)
FRAGMENT_FIELDS: Final[tuple[bytes, ...]] = (
    b"x-pjax",
    b"hx-request",
    b"turbo-frame",
    b"x-inertia",
)

# Fields of requests that a browser makes before anybody has asked for the page.
PREFETCH_FIELDS: Final[tuple[bytes, ...]] = (b"purpose", b"sec-purpose", b"x-purpose", b"x-moz")

# Fields that identify nobody but change the response at the same URL, usually without a Vary: a
# page fragment instead of the page, a redirect from http to https, links with another host. Their
# values separate variants, so that nobody gets a fragment instead of a page, a redirect loop, or a
# page with a host that somebody else has forged.
SHAPE_FIELDS: Final[tuple[bytes, ...]] = (
    b"x-requested-with",
    *FRAGMENT_FIELDS,
    b"hx-boosted",
    b"hx-target",
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
    b"x-envoy-original-path",
    b"x-envoy-original-host",
)

# Cookies whose value is the session, or a login that outlives the session. If a request has one of
# them, its other cookies do not count, except those that look like credentials. So each value must
# be unguessable and differ from person to person. A missing name costs little: then all cookies
# together determine the owner. So constants (wordpress_test_cookie), settings
# (.AspNetCore.Culture), passwords of pages (wp-postpass_*), CSRF cookies and vague names (token,
# auth) are not listed. A cookie with one of these names counts only if its value may be a secret
# (cookies.py). It counts alone only if the application has been seen to set it (sessions.py).
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

# Words in the name of a cookie, in any case, that may identify somebody even beside a session.
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

# Words in the name of a cookie that belongs to forms. It is no login and does not change with one.
CSRF_WORDS: Final[tuple[bytes, ...]] = (
    b"csrf",
    b"xsrf",
    b"antiforgery",
    b"requestverification",
)

# Ends of the names of response fields in which an application gives its client a token or the id of
# a session, in lower case: scripts and apps keep it and send it back, as browsers do with cookies.
TOKEN_FIELD_ENDS: Final = (
    b"token",
    b"jwt",
    b"session",
    b"session-id",
    b"sessionid",
    b"-sid",
    b"-auth",
    b"authorization",
)
# Tokens in such fields that are nobody's: places in a list, and those of forms.
PUBLIC_TOKEN_WORDS: Final = (
    b"page",
    b"cursor",
    b"continu",
    b"next",
    b"sync",
    b"scroll",
    b"resume",
    *CSRF_WORDS,
)


def is_token_field(name: bytes) -> bool:
    """Return whether a lower-case name is that of a field with a token of the client."""
    return name.endswith(TOKEN_FIELD_ENDS) and not any(word in name for word in PUBLIC_TOKEN_WORDS)


# Cookies that no application uses to identify its user: analytics, advertising, consent,
# stickiness. The patterns are as narrow as possible: _ga* would also match the cookies of an
# application that is called "gallery". cf_clearance is not listed on purpose: it proves that the
# visitor has passed a check.
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
    b"sbjs_*",
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

# Of these, names that a pattern of DEFAULT_SESSION_COOKIES matches, and that no application gives
# its session: where visitors of a shop come from (WooCommerce). The value changes with each page.
ANALYTICS_SESSIONS: Final[frozenset[bytes]] = frozenset((b"sbjs_session",))

# Words in User-Agent, in lower case, that identify crawlers and agents of language models.
# docs/fairness.md has the page of each operator that documents them.
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

# Error texts of databases, WordPress, PHP, shops and ASP in place of a page (goodness.py).
FAILURE_TEXTS: Final = (
    "Error establishing a database connection", "There has been a critical error on this website",
    "DB error:", "Too many connections", "max_user_connections", "SQLSTATE[", "PDOException",
    "mysqli_sql_exception", "mysqli_connect():", "(HY000/", "server has gone away",
    "Lost connection to MySQL server", "Can't connect to MySQL server",
    "Can't connect to local", "Can't connect to server on", "Lock wait timeout exceeded",
    "Deadlock found when trying", "too many clients already",
    "remaining connection slots are reserved", "could not connect to server",
    "connection to server at", "connection to server on socket",
    "the database system is starting up", "the database system is shutting down",
    "the database system is not yet accepting", "the database system is not accepting",
    "server closed the connection unexpectedly", "<b>Fatal error</b>:", "<b>Parse error</b>:",
    "PHP Fatal error:", "Fatal error: Uncaught", "Allowed memory size of", "Out of memory",
    "Maximum execution time of", "Unable to connect to database",
    "Unable to connect to the database", "Unable to connect to your database",
    "Unable to connect to MySQL", "Could not connect to MySQL", "Could not connect to database",
    "Could not connect to the database", "Could not make a database link",
    "Link to database cannot be established", "maximum number of processes exceeded",
    "no appropriate service handler found", "Microsoft OLE DB Provider for", "[Microsoft][ODBC",
    "database is locked", "SQLITE_BUSY", "Briefly unavailable for scheduled maintenance",
    # Titles that servers, proxies and templates give to error pages
    "<title>500 Internal", "<title>502 Bad Gateway", "<title>503 Service", "<title>504 Gateway",
    "<title>Internal Server Error", "<title>Bad Gateway", "<title>Service Unavailable",
    "<title>Service Temporarily Unavailable", "<title>Site Maintenance",
    "<title>Site under maintenance", "<title>Under maintenance", "<title>Maintenance mode",
    "<title>Error Occurred While Processing Request", "<h1>Internal Server Error",
    "<title>HTTP Status 500", "<title>HTTP Status 503", "<title>Error 500", "<title>Error 503",
    "<title>500 - Internal", "<title>Runtime Error", "<title>Server Error",
    "Server Error (500)", "(type=Internal Server Error", "(type=Service Unavailable",
    "We're sorry, but something went wrong", "Whoops, looks like something went wrong",
    "An Error Occurred: Internal", "An Error Occurred: Service",
    "The website encountered an unexpected error", "<title>Oops, an error occurred",
    "There has been an error processing your request", "SQL ERROR [",
    "This site is experiencing technical difficulties", "The database has encountered a problem",
    '"Internal Server Error"', '"Service Unavailable"', '"An error has occurred."',  # in JSON
    "<h1>Service Unavailable", "<h1>Software error:",
    "an error occurred while processing this directive",
    # Programs without a connection to their database
    "connect ECONNREFUSED", "QueuePool limit of size", "RedisException",
    "No suitable servers found", "TNS:listener", "maximum number of sessions exceeded",
    "Cannot get a connection, pool error", "HikariPool-", "JDBC Connection", "OutOfMemoryError",
    "could not obtain a connection from the pool", "could not obtain a database connection",
    "Can't reach database server", "Timed out fetching a new connection",
    "Timeout acquiring a connection", "prior to obtaining a connection from the pool",
    "establishing a connection to SQL Server", "ServerSelectionError",
    "ServerSelectionTimeoutError", "OperationalError:", "Unable to connect to PostgreSQL",
    "connect: connection refused", "[Errno 111] Connection refused",
    "MISCONF Redis is configured", "OOM command not allowed",
)  # fmt: skip

# Texts of pages that ask one client whether it is a robot, with status 200 (goodness.py).
CHALLENGE_TEXTS: Final = (
    "anubis_challenge", "<title>Making sure you", "<title>Just a moment...", "<title>Captcha",
    "<title>Attention Required! | Cloudflare", "<title>Checking your browser",
    "<title>Human verification", "<title>Are you a robot", "<title>Robot check",
    "<title>Security check", "<title>DDoS-Guard", "/_Incapsula_Resource",
)  # fmt: skip
