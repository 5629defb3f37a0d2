"""Shares: one bounded resource, divided among its holders."""

from collections import Counter

from safelight_settings import find_network


def holder_of(host: str) -> str:
    """Return the holder that an address stands for: itself, or the /64 network of IPv6."""
    return f"address {find_network(host)}"


class Shares:
    """A capacity of which a holder may take as much as it leaves free, at most `most`.

    One holder thus gets half of the capacity, two get a third each, and so on. So there is room
    for a newcomer however much the others want.
    """

    def __init__(self, capacity: int, most: int | None = None) -> None:
        """Share a capacity, in any unit."""
        self._capacity = capacity
        self._most = capacity if most is None else most
        self._taken = 0
        self._held: Counter[str] = Counter()

    @property
    def free(self) -> int:
        """The part of the capacity that has no holder."""
        return self._capacity - self._taken

    def held_by(self, holder: str) -> int:
        """Return the amount of a holder."""
        return self._held[holder]

    def take(self, holder: str, amount: int = 1) -> bool:
        """Take an amount; return False, and take nothing, beyond the holder's share."""
        held = self._held[holder] + amount
        if amount > self.free or held > min(self._most, max(self.free, 1)):
            return False
        self._held[holder] = held
        self._taken += amount
        return True

    def give_back(self, holder: str, amount: int = 1) -> None:
        """Give back an amount that was taken."""
        self._taken -= amount
        self._held[holder] -= amount
        if self._held[holder] <= 0:
            del self._held[holder]
