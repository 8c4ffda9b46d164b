"""What all tests share."""

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

# What a release is checked with, on the package that it is about: `make deb-test`.
collect_ignore = [] if "RETTER_DEB" in os.environ else ["deploy/test_debian.py"]
