"""Version of the distribution that is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("safelight-service")
except PackageNotFoundError:  # a bare checkout, as benchmarks/gpu runs from
    __version__ = "0+unknown"
