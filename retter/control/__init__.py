"""The commands that inspect and control a running RETTER, through its admin listener.

    commands.py   the commands status, top, why, purge, circuit, pause, resume, and their options
    client.py     one request to the admin listener and its response
    words.py      responses as text for people
    top.py        the live view in a terminal

Imported by cli.py only for these commands: a running proxy never loads it.
"""
