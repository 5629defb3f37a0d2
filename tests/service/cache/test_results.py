import dataclasses
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight_service.cache.results import MalformedResultError, Result, pack, unpack
from safelight_service.core.events import Image
from tests.service.cache.sample_results import make_result

FACTS = ("index", "mime_type", "width", "height", "seed", "is_flagged", "sha256", "size_bytes")
VALUES: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([])
)

whole_numbers = st.integers(0, 2**63 - 1)


@st.composite
def images(draw: st.DrawFn) -> Image:
    data = draw(st.binary(max_size=200))
    return Image(
        index=draw(whole_numbers),
        mime_type=draw(st.text()),
        width=draw(whole_numbers),
        height=draw(whole_numbers),
        seed=draw(whole_numbers),
        is_flagged=draw(st.booleans()),
        sha256=hashlib.sha256(data).hexdigest(),
        data=data,
    )


results = st.builds(Result, st.lists(images(), max_size=4).map(tuple), whole_numbers)


@given(st.text(), results)
def test_a_result_is_read_back_exactly(key: str, result: Result) -> None:
    assert unpack(key, pack(key, result)) == result


@given(st.binary())
def test_arbitrary_bytes_raise_the_one_error(value: bytes) -> None:
    with pytest.raises(MalformedResultError):
        unpack("key", value)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "images": st.lists(st.dictionaries(st.sampled_from(FACTS), VALUES)),
            "step_count": VALUES,
            "more": VALUES,
        },
    ).filter(lambda header: header.keys() != {"images", "step_count"} or header["images"])
)
def test_the_true_digest_of_a_false_header_raises_the_one_error(header: object) -> None:
    text = json.dumps(header).encode()
    digest = hashlib.sha256(b"key" + text).hexdigest().encode()
    with pytest.raises(MalformedResultError):
        unpack("key", b"%s %s\n" % (digest, text))


@given(results, st.data())
def test_a_flipped_bit_anywhere_is_noticed(result: Result, data: st.DataObject) -> None:
    value = bytearray(pack("key", result))
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(MalformedResultError):
        unpack("key", bytes(value))


@given(results, st.data())
def test_a_value_that_is_cut_off_is_noticed(result: Result, data: st.DataObject) -> None:
    value = pack("key", result)
    with pytest.raises(MalformedResultError):
        unpack("key", value[: data.draw(st.integers(0, len(value) - 1))])


def test_a_value_that_goes_on_is_noticed() -> None:
    with pytest.raises(MalformedResultError):
        unpack("key", pack("key", make_result(b"picture")) + b"more")


def test_a_value_under_another_key_is_noticed() -> None:
    with pytest.raises(MalformedResultError):
        unpack("key", pack("another", make_result(b"picture")))


def test_all_fields_of_an_image_are_written() -> None:
    [image] = make_result(b"picture").images
    header = pack("key", Result((image,), 20)).partition(b"\n")[0].decode()
    for name in {field.name for field in dataclasses.fields(Image)} - {"data", "is_cacheable"}:
        assert f'"{name}":' in header
