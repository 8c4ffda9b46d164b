"""Tables of what hostile clients and broken applications do.

requests.py holds malformed and ambiguous requests, misbehaviours.py what applications do wrong,
fidelity.py what has to pass unchanged. Families are generated from small tables, but each row has a
name of its own and says what must come of it; tests/proxy/test_corpus.py carries the rows out.
"""
