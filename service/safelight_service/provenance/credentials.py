"""Credentials: the certificate, and the key or the command that signs for it."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from safelight_service.provenance.signer_command import SignerCommand
from safelight_service.settings import ConfigurationError, ProvenanceSettings

_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate chain, and one of a private key and a function that signs bytes."""

    chain: bytes
    """PEM: the certificate, then its intermediates."""
    algorithm: str
    """C2PA's name of the algorithm, such as ES256."""
    fingerprint: str
    """SHA-256 of the certificate, in hexadecimal."""
    expires_at: datetime.datetime
    private_key: bytes | None
    """PEM, in PKCS #8."""
    sign: Callable[[bytes], bytes] | None


def read_credentials(settings: ProvenanceSettings) -> Credentials:
    """Read the files of the settings, which name a certificate.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    assert settings.certificate is not None
    chain = _read_file("certificate", settings.certificate)
    try:
        certificate, *_ = x509.load_pem_x509_certificates(chain)
        public_key = certificate.public_key()
    except ValueError as error:
        raise ConfigurationError(
            f"provenance.certificate: {settings.certificate} must hold certificates in PEM: {error}"
        ) from None
    match public_key:
        case ec.EllipticCurvePublicKey() if public_key.curve.name in _CURVES:
            algorithm = _CURVES[public_key.curve.name]
        case ed25519.Ed25519PublicKey():
            algorithm = "ED25519"
        case rsa.RSAPublicKey():
            algorithm = "PS256"
        case _:
            raise ConfigurationError(
                "provenance.certificate: its key must be P-256, P-384, P-521, Ed25519 or RSA"
            )
    private_key = sign = None
    if settings.private_key is None:
        sign = SignerCommand(settings.signer_command, public_key)
    else:
        private_key = _read_key(settings.private_key)
    return Credentials(
        chain,
        algorithm,
        certificate.fingerprint(hashes.SHA256()).hex(),
        certificate.not_valid_after_utc,
        private_key,
        sign,
    )


def _read_key(file: Path) -> bytes:
    content = _read_file("private_key", file)
    try:
        key = serialization.load_pem_private_key(content, None)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"provenance.private_key: {file} must hold a key in PEM, without a passphrase: {error}"
        ) from None
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read_file(setting: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"provenance.{setting}: cannot read {file}: {error.strerror}"
        ) from None
