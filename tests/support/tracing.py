"""Tests that coverage does not look at: it traces line by line."""

import pytest

# A test that plays thousands of histories, or a simulated hour, takes three to four times as long
# with each line traced, and the lines that it comes by are those of shorter tests. (The mark of
# pytest-cov itself, `no_cover`, does nothing in the processes of pytest-xdist.)
untraced = pytest.mark.untraced
