"""The admin listener: operators inspect and control RETTER through it.

It is never on the path of a request: its figures are read from counters that exist anyway, and only
when somebody asks. running.py imports it only if there is an admin listener.

    listener.py     the connections, and who receives events
    connection.py   one connection: HTTP/1.1 by h11, one small request at a time
    auth.py         access: Host, Origin, token
    api.py          paths, methods and their handlers
    situation.py    the sentences: one table for all who tell how it is
    watch.py        the situation of this moment, since when, and the incidents
    history.py      the figures of the last minute; chart.py those of thirty days
    incidents.py    the spells of trouble, and what visitors got in them
    archive.py      keeps charts and incidents beside the store, for the next process
    busiest.py      the pages that keep the application busy
    lately.py       what each of several workers tells the one that answers operators
    stored.py       what is stored, page by page
    state.py        the JSON document that the dashboard and the commands show
    transitions.py  the last changes of the circuit's state, with figures and in words
    controls.py     orders of an operator, and when they end
"""
