"""How RETTER is built. All that does not depend on anything stands in pyproject.toml.

`pip install .` installs plain Python. With COMPILE_RETTER=3 the modules on a request's way are
compiled by mypyc (https://mypyc.readthedocs.io) at that level of optimisation, 0 to 3. That takes a
C compiler and two minutes, and makes a request cheaper: docs/performance.md has the figures. What
is compiled is the same source, and behaves the same; `retter --version` tells which it is.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

# What a request meets with every step. Not the pool, the compressors and the proxy itself: they do
# little for each request, and tests put others in their place.
MODULES = (
    "base/buffers", "base/client_id", "base/counters", "base/hashing", "base/wildcard",
    "http/binding_schemes", "http/cache_control", "http/chunked", "http/content_coding",
    "http/cookies", "http/dates", "http/forwarding", "http/framing_rules", "http/head_edit",
    "http/hop_by_hop", "http/known_names", "http/memo", "http/message", "http/read_buffer",
    "http/request_parser", "http/response_parser", "http/templates", "http/turn_cookie",
    "http/variants",
    "store/accounting", "store/changes", "store/conditional", "store/forms", "store/hints",
    "store/invalidation", "store/key_table", "store/known_sessions", "store/lineage", "store/marks",
    "store/owner", "store/personal", "store/policy", "store/record", "store/refreshing",
    "store/replacement", "store/rules", "store/s3fifo", "store/selection", "store/sessions",
    "store/set_cookie", "store/shared_store", "store/store", "store/taken_back", "store/target",
    "compression/coding", "compression/pipeline", "net/write_batch",
    "proxy/backlog", "proxy/bound_connections", "proxy/client_connection", "proxy/client_requests",
    "proxy/client_writer", "proxy/clients", "proxy/deadline_wheel", "proxy/delivery",
    "proxy/exchange", "proxy/goodness", "proxy/head_reader", "proxy/holders",
    "proxy/idle_connections", "proxy/interfaces", "proxy/keeping", "proxy/learning",
    "proxy/local_answers", "proxy/peers", "proxy/redirect", "proxy/relay", "proxy/request",
    "proxy/request_body", "proxy/responses", "proxy/retries", "proxy/sampling", "proxy/services",
    "proxy/stored_choice", "proxy/time_limits", "proxy/tunnel", "proxy/upstream_connection",
    "proxy/withdrawals",
)  # fmt: skip

LEVELS = ("0", "1", "2", "3")

compiled: dict[str, object] = {}
if level := os.environ.get("COMPILE_RETTER", ""):
    if level not in LEVELS:
        sys.exit(f"COMPILE_RETTER={level}: one of {', '.join(LEVELS)}, or empty for plain Python")
    if "editable_wheel" in sys.argv:
        # The next change of the source would not be what runs.
        sys.exit("COMPILE_RETTER does not go with pip install -e; `make compiled` makes a copy")
    compiled["setup_requires"] = ["mypy>=1.11"]
    if "bdist_wheel" in sys.argv:  # else only the needs and the names are asked for
        from mypyc.build import mypycify

        files = [f"retter/{name}.py" for name in MODULES]
        for package in ("breaker", "judgement"):
            files += sorted(map(str, Path("retter", package).glob("[a-z]*.py")))
        options = ["--config-file=", "--ignore-missing-imports"]
        compiled["ext_modules"] = mypycify([*options, *files], opt_level=level)

setup(**compiled)
