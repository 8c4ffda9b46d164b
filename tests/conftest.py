"""What all tests share."""

from hypothesis import HealthCheck, settings

# No test judges how fast this machine is: an example takes as long as it takes, and so does
# making one up.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")
