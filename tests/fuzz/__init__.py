"""Any bytes from either side: a world of clients and connections, and what must hold in it.

world.py holds the world and its invariants, steps.py what can happen in it, as bytes, with the
corpus as its beginnings. `python -m tests.fuzz` (make fuzz) lets atheris drive it; the tests
(tests/proxy/test_fuzz.py) let hypothesis.
"""
