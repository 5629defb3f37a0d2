"""Bare checkout: runs the GPU benchmarks with the service's dependencies alone.

The distributions of this project count as not installed, as on a machine that is lent with its
packages.
"""

import re
import runpy
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_OWN = ("safelight", "safelight-gateway", "safelight-service", "safelight-settings")
_FOLDERS = ("/service", "/settings", "/clients/python", "/clients/gateway")
_NAME = re.compile(r"[\w.-]+")


def list_dependencies() -> frozenset[str]:
    """Return the names of all distributions that the service needs, without its own parts."""
    needed: set[str] = set()
    found = set(_list_needs("safelight-service")) - {*_OWN}
    while found:
        name = found.pop()
        needed.add(name)
        try:
            found |= set(_list_needs(name)) - needed
        except metadata.PackageNotFoundError:
            continue  # for other platforms
    return frozenset(needed)


def hide_all_but(needed: frozenset[str]) -> None:
    """Hide the other distributions, and the folders of this project."""
    owners = metadata.packages_distributions()
    refused = {
        module for module, names in owners.items() if needed.isdisjoint(map(_normalize, names))
    }

    class Bare(PathFinder):
        @classmethod
        def find_spec(
            cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
        ) -> ModuleSpec | None:
            if fullname.partition(".")[0] in refused:
                return None
            return PathFinder.find_spec(fullname, path, target)

        @classmethod
        def find_distributions(
            cls, *context: metadata.DistributionFinder.Context
        ) -> Iterator[metadata.PathDistribution]:
            for each in PathFinder.find_distributions(*context):
                if _normalize(each.name) in needed:
                    yield each

    sys.meta_path[:] = [Bare if each is PathFinder else each for each in sys.meta_path]
    sys.path[:] = [path for path in sys.path if not path.endswith(_FOLDERS)]


def _list_needs(name: str) -> Iterator[str]:
    for need in metadata.requires(name) or ():
        match = _NAME.match(need)
        if match and "extra ==" not in need:
            yield _normalize(match[0])


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    hide_all_but(list_dependencies())
    from benchmarks.gpu.driver import load
    from benchmarks.gpu.stages import STAGES

    for stage in STAGES:
        load(stage)
    runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
