"""The verification of an image: its claims, signed and unsigned."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from safelight.provenance.manifest import (
    Manifest,
    ManifestState,
    check_trust_anchors,
    read_manifest,
)
from safelight.provenance.metadata import Metadata, read_metadata

_GENERATED = ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The claims of an image about its origin.

    Attributes:
        mime_type: MIME type of the image.
        metadata: Unsigned claims.
        manifest: Signed claims, and the result of checking them.
    """

    mime_type: str
    metadata: Metadata
    manifest: Manifest

    @property
    def is_generated(self) -> bool:
        """Whether the image claims, signed or not, that a model generated it or a part of it.

        False proves nothing: many programs and sites remove all claims.
        """
        claims = (self.metadata.source_type, self.manifest.source_type)
        return any(claim is not None and claim.endswith(_GENERATED) for claim in claims)

    @property
    def is_verified(self) -> bool:
        """Whether the signed claims belong to this image, unchanged."""
        return self.manifest.state in (ManifestState.VALID, ManifestState.TRUSTED)

    def as_record(self) -> dict[str, object]:
        """Return all claims as values of JSON, with times in ISO 8601."""
        manifest = asdict(self.manifest)
        for name in ("created_at", "signed_at"):
            manifest[name] = manifest[name] and manifest[name].isoformat()
        manifest["problems"] = list(self.manifest.problems)
        return {
            "mime_type": self.mime_type,
            "is_generated": self.is_generated,
            "is_verified": self.is_verified,
            "manifest": manifest,
            "metadata": asdict(self.metadata),
        }


def verify(
    image: bytes | str | os.PathLike[str], *, trust_anchors: str | None = None
) -> Verification:
    """Read the claims of a PNG, JPEG or WebP, and check its C2PA manifest.

    The check needs the extra `safelight[provenance]`. Nothing is fetched from the network, and
    the pixels are not decoded.

    Args:
        image: Bytes of the image, or the path of its file.
        trust_anchors: Certificates in PEM. A manifest is trusted if the certificate of its signer
            leads to one of them, and at most valid without them.

    Raises:
        OSError: the file cannot be read.
        ValueError: the image has another format, or the trust anchors are no certificates.
    """
    if trust_anchors is not None:
        check_trust_anchors(trust_anchors)
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    mime_type = _find_type(data)
    return Verification(
        mime_type=mime_type,
        metadata=read_metadata(data, mime_type),
        manifest=read_manifest(data, mime_type, trust_anchors),
    )


def _find_type(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    raise ValueError("must be a PNG, JPEG or WebP")
