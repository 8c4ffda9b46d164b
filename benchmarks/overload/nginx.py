"""The common part of the configurations of nginx."""

from pathlib import Path

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def common_beginning(folder: Path, *, root: bool) -> str:
    """Return a configuration up to the inside of its `http` block, for one worker."""
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in _TEMPORARY)
    return f"""\
{"user root;" if root else ""}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 18000; }}
http {{
access_log off;
{temporary}"""
