"""Goals: figures with the limits that they are to keep."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and its limit."""

    name: str
    limit: float
    measured: float
    unit: str = ""
    is_least: bool = False
    """The figure must be at least the limit, not at most."""

    @property
    def is_met(self) -> bool:
        """Whether the figure keeps the limit."""
        return self.measured >= self.limit if self.is_least else self.measured <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.is_least else "at most"
        verdict = "met" if self.is_met else "MISSED"
        wanted = f"{bound} {self.limit:g} {self.unit}".strip()
        return f"{self.name:<58}{wanted:<18}{self.measured:>8.2f}  {verdict}"


def percentile(measured: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    ordered = sorted(measured)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
