"""What s3fifo.py does, with lists that are gone through: to compare it with, not to be fast."""

from retter.store.s3fifo import PROBATION_SHARE, STEPS_MAX


class NaiveQueues:
    """The same decisions as EvictionQueues, one after the other as they are written down."""

    def __init__(self, places: int) -> None:
        self.probation: list[tuple[bytes, int]] = []  # oldest first
        self.main: list[bytes] = []
        self.asked: set[bytes] = set()
        self.ghosts: list[bytes] = []  # of each place of the table the last one
        self._places = places

    def on_probation(self, key: bytes) -> bool:
        return any(held == key for held, _ in self.probation)

    def holds(self, key: bytes) -> bool:
        return key in self.main or self.on_probation(key)

    def add(self, key: bytes, size: int) -> None:
        if self.holds(key):
            self.probation = [(k, size if k == key else s) for k, s in self.probation]
            self.asked.add(key)
        elif key in self.ghosts:
            self.ghosts.remove(key)
            self.main.append(key)
        else:
            self.probation.append((key, size))

    def remove(self, key: bytes) -> None:
        self.probation = [(held, size) for held, size in self.probation if held != key]
        self.main = [held for held in self.main if held != key]
        self.asked.discard(key)

    def leave_ghost(self, key: bytes) -> None:
        place = hash(key) % self._places
        self.ghosts = [held for held in self.ghosts if hash(held) % self._places != place]
        self.ghosts.append(key)

    def next_to_go(self, bytes_max: int) -> bytes:
        for _ in range(STEPS_MAX):
            held = sum(size for _, size in self.probation)
            if self.probation and (not self.main or held > bytes_max // PROBATION_SHARE):
                key, size = self.probation.pop(0)
                if key not in self.asked:
                    self.probation.insert(0, (key, size))
                    return key
            else:
                key = self.main.pop(0)
                if key not in self.asked:
                    self.main.insert(0, key)
                    return key
            self.asked.remove(key)
            self.main.append(key)
        return self.main[0]
