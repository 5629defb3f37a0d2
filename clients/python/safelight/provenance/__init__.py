"""Provenance: the claims of an image about its origin, and whether a signature backs them."""

from safelight.provenance.manifest import Manifest, ManifestState, check_trust_anchors
from safelight.provenance.metadata import Metadata
from safelight.provenance.verification import Verification, verify

__all__ = ["Manifest", "ManifestState", "Metadata", "Verification", "check_trust_anchors", "verify"]
