"""The commands that look into a running RETTER and steer it, over its admin listener.

    commands.py   the words status, top, why, purge, circuit, pause, resume, and their options
    client.py     one question to the admin listener, one answer
    words.py      an answer as people read it
    top.py        the live view in a terminal

Imported by cli.py for these words only: a proxy that runs never loads it.
"""
