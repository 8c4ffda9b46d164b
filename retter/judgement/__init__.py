"""One judgement for several worker processes: see breaker.py. Not imported with one worker."""
