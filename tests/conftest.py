"""Fixtures for all tests."""

import os
import signal

from hypothesis import HealthCheck, settings

# No test judges how fast this machine is: an example takes as long as it takes, and so does
# making one up.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

# A shell without job control has what it starts in the background ignore SIGINT, and so would the
# programs that the tests start and send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a release is checked with: `make deb-test`, on its package, and `make tutorial-test`.
collect_ignore = [
    path
    for path, variable in {
        "deploy/test_debian.py": "RETTER_DEB",
        "docs/test_tutorial.py": "RETTER_TUTORIAL",
    }.items()
    if variable not in os.environ
]
