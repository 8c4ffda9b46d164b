"""A second one of something, to ask it what would happen: for `CircuitBreaker.would`.

`copy` makes instances without calling the constructor, and of a compiled class (setup.py) there are
none. So the twin is constructed, and then given the state of the original.
"""

from collections.abc import Collection


def take_state(twin: object, original: object, parts: Collection[type] = ()) -> None:
    """Give a new object the attributes of another one of its class.

    What is an instance of one of `parts` on both sides is not shared: the twin's own one is given
    the state of the other. Lists are copied, all else is shared.
    """
    for name in _attributes(type(original)):
        value, own = getattr(original, name), getattr(twin, name)
        if own == value:
            continue    # among them what is final
        if type(value) in parts and type(own) is type(value):
            take_state(own, value, parts)
        else:
            setattr(twin, name, value.copy() if isinstance(value, list) else value)


def _attributes(cls: type) -> list[str]:
    compiled: tuple[str, ...] | None = getattr(cls, "__mypyc_attrs__", None)
    if compiled is not None:
        return list(compiled)
    return [name for base in cls.__mro__ for name in getattr(base, "__slots__", ())]
