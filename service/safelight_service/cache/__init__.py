"""Result cache: keeps finished images by request; imports neither torch nor gRPC."""

from safelight_service.cache.key import cache_key
from safelight_service.cache.result_cache import ResultCache
from safelight_service.cache.results import Result

__all__ = ["Result", "ResultCache", "cache_key"]
