"""Shares: the amounts of a bounded resource that tenants hold, and which of them exceeds its share.

A share is the tenant's part of the limit, in proportion to the weights of all that hold something.
What a tenant leaves unused is for the others, so only a full resource has to take from anybody:
from the tenant that exceeds its share most. No tenant within its share can lose anything.
"""

from collections.abc import Mapping

from safelight_service.core.tenant import Tenant


class Shares:
    """Amounts by tenant, in any unit that whole numbers count. A tenant is known by its name."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._amounts: dict[str, int] = {}
        self._weights: dict[str, float] = {}
        self.total = 0
        """Sum of all amounts."""

    @property
    def amounts(self) -> Mapping[str, int]:
        """Amounts by the names of the tenants that hold something."""
        return self._amounts

    @property
    def is_exceeded(self) -> bool:
        """Whether all tenants together hold more than the limit."""
        return self.total > self._limit

    def add(self, tenant: Tenant, amount: int) -> None:
        """Count an amount for a tenant, whose weight is the latest that was given."""
        self._weights[tenant.name] = tenant.weight
        self._amounts[tenant.name] = self._amounts.get(tenant.name, 0) + amount
        self.total += amount

    def take(self, name: str, amount: int) -> None:
        """Count an amount of a tenant no longer; forget a tenant that holds nothing."""
        self.total -= amount
        left = self._amounts.pop(name, 0) - amount
        if left:
            self._amounts[name] = left
        else:
            self._weights.pop(name, None)

    def find_excessive(self) -> str:
        """Return the name of the tenant that exceeds its share most.

        Raises:
            ValueError: no tenant holds anything.
        """
        unit = self._limit / (sum(self._weights.values()) or 1.0)
        return max(self._amounts, key=lambda name: self._amounts[name] - unit * self._weights[name])
