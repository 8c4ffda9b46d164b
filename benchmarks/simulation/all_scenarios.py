"""All scenarios there are."""

from benchmarks.simulation.crowd_scenarios import CROWDED
from benchmarks.simulation.scenarios import SCENARIOS as UNCROWDED

SCENARIOS = (*UNCROWDED, *CROWDED)
