"""The log and the access log."""
