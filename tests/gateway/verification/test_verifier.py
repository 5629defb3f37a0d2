"""The verifier: processes of its own, with limits that end them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from safelight_gateway.errors import GatewayError
from safelight_gateway.settings import VerificationSettings
from safelight_gateway.verification.verifier import Verifier
from support.signed_images.pictures import draw, draw_plain
from support.signed_images.signing import Authority, make_authority

HOLDER = "address 192.0.2.1"
WIDEST = (16383 - 1).to_bytes(3, "little")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


def verify(*images: bytes, **settings: Any) -> list[Any]:
    """Verify images at once; return the answers, and the errors in the place of answers."""

    async def run() -> list[Any]:
        verifier = Verifier(VerificationSettings(**settings))
        try:
            return await asyncio.gather(
                *(verifier.verify(image, HOLDER) for image in images), return_exceptions=True
            )
        finally:
            verifier.close()

    answers = asyncio.run(run())
    return [json.loads(each) if isinstance(each, bytes) else each for each in answers]


def test_a_holder_verifies_its_share_with_the_trust_anchors(
    authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "anchors.pem").write_text(authority.anchor)
    signed = authority.sign(draw("image/webp"), "image/webp")
    plain = draw_plain("image/png")
    anchors = tmp_path / "anchors.pem"
    *answers, refused = verify(signed, plain, plain, trust_anchors=anchors, max_count=4, max_s=60)
    assert [each["manifest"]["state"] for each in answers] == ["trusted", "absent"]
    assert (refused.status, refused.reason) == (429, "RATE_LIMITED")
    assert refused.retry_after_s


def test_a_verification_that_takes_too_long_is_killed() -> None:
    image = draw_plain("image/png") + bytes(128 * 2**20)  # takes long to reach the process
    [refused] = verify(image, max_s=1e-4)
    assert isinstance(refused, GatewayError)
    assert (refused.status, refused.reason) == (422, "INVALID_REQUEST")
    assert "cannot be verified within 0.0001 s" in refused.message


def test_memory_is_bounded() -> None:
    """A canvas of 16383 x 16383 pixels would take a gigabyte."""
    image = draw("image/webp")
    at = image.index(b"VP8X") + 12
    [answer] = verify(image[:at] + 2 * WIDEST + image[at + 6 :], max_memory_mib=64, max_s=60)
    assert answer["metadata"]["problem"]


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_trust_anchors_are_read_at_start(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "anchors.pem").write_text(text)
    with pytest.raises((OSError, ValueError), match=r"certificates in PEM|No such file"):
        Verifier(VerificationSettings(trust_anchors=tmp_path / "anchors.pem"))
