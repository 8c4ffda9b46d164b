"""The admin listener: how operators see RETTER and steer it.

It stands beside the way of a request and never on it: what it shows is read from counters that are
kept anyway, when somebody asks. Imported by running.py only where there is an admin listener.

    listener.py    one connection: HTTP/1.1 by h11, one small request at a time
    guard.py       who may ask: Host, Origin, token
    api.py         what may be asked: paths, methods, answers
    state.py       the one JSON document that the page and the command line draw
    flight.py      the last changes of the circuit's state, with figures and in words
    controls.py    what an operator asks for, for how long
"""
