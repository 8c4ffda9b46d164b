"""A small shop with a finite database, to see RETTER work, and a load generator to overload it.

`python -m retter.demo` runs the shop, `retter demo --with-proxy :8089` the shop behind RETTER and
`retter load URL` the load. Nothing here is imported by the proxy.
"""
