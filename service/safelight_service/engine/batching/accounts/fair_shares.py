"""FairShares: device time by tenant, so that none can take another's share.

Start-time fair queueing: each tenant has a virtual time, the device seconds of its work divided by
its weight, and the one that is furthest behind comes first. A tenant without work earns no credit:
when it returns, it starts at the least virtual time of those that have work. Time that it leaves
unused goes to the others.
"""

from collections.abc import Mapping, Set

from safelight_service.core.tenant import Tenant


class FairShares:
    """Accounts of the tenants of one device. Used by the device thread only."""

    def __init__(self) -> None:
        self._virtual_s: dict[str, float] = {}
        self._active: Set[str] = frozenset()
        self._now_s = 0.0
        """Virtual time of the device: the least of all tenants with work; never decreases."""

    @property
    def virtual_s(self) -> Mapping[str, float]:
        """Virtual seconds of the tenants that have work or had more than their share."""
        return self._virtual_s

    def activate(self, names: Set[str]) -> None:
        """Note the tenants that have work now, at least one."""
        accounts = self._virtual_s
        self._pass_to(min((accounts[name] for name in self._active & names), default=0.0))
        for name in names - self._active:
            accounts[name] = max(accounts.get(name, 0.0), self._now_s)
        if names != self._active:
            self._active = frozenset(names)
            self._pass_to(min(accounts[name] for name in names))
            self._forget()

    def charge(self, tenant: Tenant, seconds: float) -> None:
        """Count device seconds; a GPU's become known late, perhaps after the tenant's last job."""
        before = self._virtual_s.get(tenant.name, self._now_s)
        self._virtual_s[tenant.name] = before + seconds / tenant.weight

    def clear(self) -> None:
        """Forget all accounts, since an idle device has kept nobody waiting."""
        self._virtual_s.clear()
        self._active = frozenset()
        self._now_s = 0.0

    def _pass_to(self, virtual_s: float) -> None:
        self._now_s = max(self._now_s, virtual_s)

    def _forget(self) -> None:
        """Forget tenants without work that would start anew at the same virtual time."""
        passed = [
            name
            for name, virtual_s in self._virtual_s.items()
            if name not in self._active and virtual_s <= self._now_s
        ]
        for name in passed:
            del self._virtual_s[name]
