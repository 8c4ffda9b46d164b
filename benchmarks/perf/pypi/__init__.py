"""Proxies made of packages from PyPI; they run in an environment of their own."""
