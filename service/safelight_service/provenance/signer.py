"""Signer: signs manifests and embeds them into images. Any thread may call it."""

import io
from datetime import UTC, datetime, timedelta

import c2pa
import PIL.Image
import structlog

from safelight_service.auth.reloading import Reloaded
from safelight_service.provenance.credentials import Credentials, read_credentials
from safelight_service.provenance.manifest import write_trial_manifest
from safelight_service.provenance.signer_command import SignerError
from safelight_service.provenance.timestamps import Timestamps
from safelight_service.settings import ConfigurationError, ProvenanceSettings

_log = structlog.get_logger()

# By default, the library would add a thumbnail of up to 2.8 MB and verify each image.
_CONTEXT = {"builder": {"thumbnail": {"enabled": False}}, "verify": {"verify_after_sign": False}}
RELOAD_EVERY_S = 1.0
_EXPIRY_NOTICE = timedelta(days=14)


class SigningError(Exception):
    """An image could not be signed."""


class Signer:
    """The credentials of the settings, reread when their files change."""

    def __init__(self, settings: ProvenanceSettings) -> None:
        """Sign once, to try the credentials.

        Raises:
            ConfigurationError: they cannot sign.
        """
        self._settings = settings
        self._context = c2pa.Context.from_dict(_CONTEXT)
        self._timestamps = Timestamps(settings.timestamp_url)
        files = [file for file in (settings.certificate, settings.private_key) if file is not None]
        self._credentials = Reloaded(self._read, files, interval_s=RELOAD_EVERY_S)

    @property
    def identity(self) -> str:
        """Text that changes with the certificate, and when that expires."""
        credentials = self._credentials.present
        state = " expired" if datetime.now(UTC) >= credentials.expires_at else ""
        return credentials.fingerprint + state

    def sign(self, data: bytes, mime_type: str, manifest: str) -> bytes:
        """Return an image file with a signed manifest; its pixels stay the same.

        Adds a timestamp, if an authority is configured and answers.

        Raises:
            SigningError: the certificate has expired, or the command has failed.
        """
        return self._sign(self._credentials.get(), data, mime_type, manifest)

    def _sign(self, credentials: Credentials, data: bytes, mime_type: str, manifest: str) -> bytes:
        url = self._timestamps.claim()
        if url is None:
            return self._embed(credentials, None, data, mime_type, manifest)
        try:
            signed = self._embed(credentials, url, data, mime_type, manifest)
        except SigningError as error:
            signed = self._embed(credentials, None, data, mime_type, manifest)
            if self._timestamps.note(is_failing=True):
                _log.warning("timestamp_authority_failing", error=str(error))
        else:
            if self._timestamps.note(is_failing=False):
                _log.info("timestamp_authority_works_again")
        return signed

    def _read(self) -> Credentials:
        """Read the credentials, and try them on an image.

        Raises:
            ConfigurationError: they cannot sign.
        """
        credentials = read_credentials(self._settings)
        expires = f"{credentials.expires_at:%Y-%m-%d %H:%M} UTC"
        left = credentials.expires_at - datetime.now(UTC)
        if left <= timedelta():
            raise ConfigurationError(
                f"provenance.certificate: {self._settings.certificate} has expired on {expires}"
            )
        stream = io.BytesIO()
        PIL.Image.new("L", (1, 1)).save(stream, "PNG")
        trial = stream.getvalue(), "image/png", write_trial_manifest()
        try:
            if not self._is_valid(self._embed(credentials, None, *trial)):
                raise ConfigurationError(
                    "provenance.private_key: does not belong to the first certificate"
                )
            if not self._is_valid(self._sign(credentials, *trial)):
                raise ConfigurationError(
                    "provenance.timestamp_url: C2PA does not accept this authority's timestamps"
                )
        except SigningError as error:
            raise ConfigurationError(f"provenance: cannot sign: {error}") from None
        if left < _EXPIRY_NOTICE:
            _log.warning("provenance_certificate_expires", at=expires)
        return credentials

    def _is_valid(self, signed: bytes) -> bool:
        with c2pa.Reader("image/png", io.BytesIO(signed), context=self._context) as reader:
            return reader.get_validation_state() in ("Valid", "Trusted")

    def _embed(
        self,
        credentials: Credentials,
        timestamp_url: str | None,
        data: bytes,
        mime_type: str,
        manifest: str,
    ) -> bytes:
        failures: list[SignerError] = []

        def sign(claim: bytes) -> bytes:
            """Sign by the command; the library drops exceptions."""
            assert credentials.sign is not None
            try:
                return credentials.sign(claim)
            except SignerError as error:
                failures.append(error)
                return b""

        algorithm = c2pa.C2paSigningAlg[credentials.algorithm]
        signed = io.BytesIO()
        try:
            # One signer for each image: no document says that threads may share one.
            if credentials.private_key is None:
                signer = c2pa.Signer.from_callback(
                    sign, algorithm, credentials.chain.decode(), timestamp_url
                )
            else:
                signer = c2pa.Signer.from_info(
                    c2pa.C2paSignerInfo(
                        algorithm, credentials.chain, credentials.private_key, timestamp_url
                    )
                )
            with signer, c2pa.Builder(manifest, context=self._context) as builder:
                builder.sign(signer, mime_type, io.BytesIO(data), signed)
        except c2pa.C2paError as error:
            raise SigningError(str(failures[0] if failures else error)) from None
        return signed.getvalue()
