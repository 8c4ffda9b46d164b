"""What the standards and other people's programs ask of a proxy (`make conformance`).

caching.py is a table of RFC 9111's rules; programs.py talks to RETTER with slowhttptest, curl,
websockets and REDbot.
"""
