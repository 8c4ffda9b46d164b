"""The least that Python can do, and the proxy that one writes first: three programs to compare."""
