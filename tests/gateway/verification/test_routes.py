"""The route `/v1/verify`, as a client sees it."""

import jsonschema

from support.running_gateway import RunningGateway
from support.signed_images.pictures import PARAMETERS, draw
from support.signed_images.signing import SIGNER, make_authority
from tests.gateway.http_call import call, post


def test_the_answer_has_the_claims_and_fits_its_description(gateway: RunningGateway) -> None:
    image = make_authority().sign(draw("image/webp"), "image/webp")
    answer = post(f"{gateway.url}/v1/verify", image, content_type="image/webp")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json["mime_type"] == "image/webp"
    assert answer.json["manifest"]["state"] == "valid"
    assert answer.json["manifest"]["signer"] == SIGNER
    assert answer.json["metadata"]["parameters"] == PARAMETERS
    document = call(f"{gateway.url}/openapi.json").json
    schema = {**document, "$ref": "#/components/schemas/Verification"}
    jsonschema.Draft202012Validator(schema).validate(answer.json)


def test_other_bodies_are_refused_as_problems(gateway: RunningGateway) -> None:
    answer = post(f"{gateway.url}/v1/verify", b"no image")
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json["violations"] == [
        {"field": "image", "description": "must be a PNG, JPEG or WebP"}
    ]


def test_an_image_may_be_larger_than_other_bodies_but_not_by_any_size(
    gateway: RunningGateway,
) -> None:
    large = draw("image/png") + bytes(2 * 2**20)
    assert post(f"{gateway.url}/v1/verify", large).status == 200
    refused = post(f"{gateway.url}/v1/verify", large + bytes(10 * 2**20))
    assert (refused.status, refused.json["reason"]) == (413, "TOO_LARGE")
