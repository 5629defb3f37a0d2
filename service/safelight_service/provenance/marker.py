"""Marker: marks finished images as generated, as the settings ask. Any thread may call it."""

import json
from typing import TYPE_CHECKING

import structlog

from safelight_service.provenance.manifest import write_manifest
from safelight_service.provenance.origin import Origin
from safelight_service.provenance.parameters import describe_parameters
from safelight_service.provenance.tags import Tags
from safelight_service.settings import ConfigurationError, ProvenanceSettings
from safelight_settings import LineLimit

if TYPE_CHECKING:
    from safelight_service.provenance.signer import Signer

_log = structlog.get_logger()


class UnsignedImageError(Exception):
    """An image could not be signed, and `provenance.required` forbids to send it."""


class Marker:
    """Writes tags and signatures."""

    def __init__(self, settings: ProvenanceSettings) -> None:
        """Read the certificate, if there is one.

        Raises:
            ConfigurationError: it cannot sign, or the C2PA library is not installed.
        """
        self._settings = settings
        self._failures = LineLimit(max_count=1)
        self._signer = None if settings.certificate is None else _make_signer(settings)

    @property
    def identity(self) -> str:
        """Text that is equal where equal images get equal tags, and signatures that hold alike."""
        settings = self._settings
        signer = "" if self._signer is None else self._signer.identity
        return json.dumps(
            [
                settings.include_parameters,
                settings.include_prompts,
                settings.timestamp_url,
                signer,
            ]
        )

    def tag(self, origin: Origin) -> Tags:
        """Return the tags of an image."""
        text = describe_parameters(origin) if self._settings.include_parameters else ""
        return Tags(text, origin.model, origin.revision)

    def sign(self, data: bytes, mime_type: str, origin: Origin) -> bytes | None:
        """Return an image file with a signed manifest, or as it is without a certificate.

        Returns None if it cannot be signed but may be sent.

        Raises:
            UnsignedImageError: it cannot be signed and must not be sent.
        """
        if self._signer is None:
            return data
        from safelight_service.provenance.signer import SigningError

        manifest = write_manifest(origin, include_prompts=self._settings.include_prompts)
        try:
            return self._signer.sign(data, mime_type, manifest)
        except SigningError as error:
            admitted = self._failures.admit("")
            if admitted is not None:
                _log.error("signing_failed", error=str(error), **admitted)
            if self._settings.required:
                raise UnsignedImageError from None
            return None


def _make_signer(settings: ProvenanceSettings) -> "Signer":
    try:
        # Imported here: it needs the extra `provenance`.
        from safelight_service.provenance.signer import Signer
    except ImportError as error:
        raise ConfigurationError(
            "provenance.certificate: the C2PA library is not installed; install "
            "safelight-service[provenance]"
        ) from error
    return Signer(settings)
