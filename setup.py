"""How RETTER is built. All that does not depend on anything stands in pyproject.toml.

`pip install .` installs plain Python. With RETTER_COMPILE=1 the modules on a request's way are
compiled by mypyc (https://mypyc.readthedocs.io), which takes a C compiler and two minutes, and
makes a request cost a fifth less: docs/performance.md has the figures. What is compiled is the same
source, and behaves the same; `retter --version` tells which it is.
"""

import os
import sys
from pathlib import Path

from setuptools import setup

# What a request meets with every step. Not the pool and the proxy itself: they do little for each
# request, and tests put others in their place.
MODULES = (
    "answers", "cachecontrol", "coding", "conditional", "downstream", "exchange", "forwarding",
    "heads", "httpdate", "lines", "measured", "memo", "message", "negotiation", "owner", "policy",
    "redirect", "shelves", "store", "stored", "upstream", "wheel", "window",
)  # fmt: skip

compiled: dict[str, object] = {}
if os.environ.get("RETTER_COMPILE", "") not in ("", "0"):
    if "editable_wheel" in sys.argv:
        # The next change of the source would not be what runs.
        sys.exit("RETTER_COMPILE=1 does not go with pip install -e: `make test-compiled` copies")
    compiled["setup_requires"] = ["mypy>=1.11"]
    try:
        from mypyc.build import mypycify
    except ImportError:     # asked for what the build needs: then it is there
        pass
    else:
        files = [f"retter/{name}.py" for name in MODULES]
        files += sorted(map(str, Path("retter/breaker").glob("[a-z]*.py")))
        options = ["--config-file=", "--ignore-missing-imports"]
        compiled["ext_modules"] = mypycify([*options, *files], opt_level="3")

setup(**compiled)
