"""The result cache: what was made once is not made again; it knows neither torch nor gRPC."""

from safelight_service.cache.key import cache_key
from safelight_service.cache.result_cache import ResultCache
from safelight_service.cache.results import Result

__all__ = ["Result", "ResultCache", "cache_key"]
