"""A fake service for tests of programs that call Safelight."""

from safelight.testing.replay import Replay
from safelight.testing.service import FakeService
from safelight.testing.vectors import Vector, VectorCall, image_bytes, load_vectors

__all__ = ["FakeService", "Replay", "Vector", "VectorCall", "image_bytes", "load_vectors"]
