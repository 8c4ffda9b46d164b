"""Conformance to the standards and with other people's programs (`make conformance`).

caching.py is a table of RFC 9111's rules; programs.py talks to RETTER with slowhttptest, curl,
websockets and REDbot.
"""
