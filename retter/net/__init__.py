"""Sockets, names and keys."""
