"""SignerCommand: a program that signs with a key that the service cannot read.

Python starts it without a copy of the process (vfork), so gRPC's threads and locks are safe.
"""

import subprocess
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

_TIMEOUT_S = 10.0
_HASHES: dict[int, type[hashes.HashAlgorithm]] = {
    256: hashes.SHA256,
    384: hashes.SHA384,
    521: hashes.SHA512,
}


class SignerError(Exception):
    """The command has failed, or its output is no signature of the certificate's key."""


class SignerCommand:
    """Signs bytes by a command, which reads them and writes the signature."""

    def __init__(self, command: Sequence[str], public_key: PublicKeyTypes) -> None:
        self._command = command
        self._public_key = public_key

    def __call__(self, data: bytes) -> bytes:
        """Return the signature: DER of an elliptic curve, the plain bytes of other keys.

        Raises:
            SignerError: there is none.
        """
        try:
            done = subprocess.run(
                self._command, input=data, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except OSError as error:
            raise SignerError(f"signer_command does not start: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise SignerError(f"signer_command has not ended in {_TIMEOUT_S:g} s") from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-200:]
            raise SignerError(f"signer_command exits with {done.returncode}: {said}")
        try:
            return _verify(self._public_key, done.stdout, data)
        except (InvalidSignature, ValueError):
            raise SignerError(
                "signer_command does not write a signature of the certificate's key"
            ) from None


def _verify(public_key: PublicKeyTypes, signature: bytes, data: bytes) -> bytes:
    """Return a signature that the key confirms.

    Raises:
        InvalidSignature: it does not.
    """
    match public_key:
        case ec.EllipticCurvePublicKey():
            size = (public_key.key_size + 7) // 8
            if len(signature) == 2 * size:  # r and s, as PKCS #11 writes them
                numbers = (signature[:size], signature[size:])
                signature = encode_dss_signature(*(int.from_bytes(each) for each in numbers))
            public_key.verify(signature, data, ec.ECDSA(_HASHES[public_key.key_size]()))
        case ed25519.Ed25519PublicKey():
            public_key.verify(signature, data)
        case rsa.RSAPublicKey():
            digest = hashes.SHA256()
            pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
            public_key.verify(signature, data, pss, digest)
    return signature
