import pytest

from safelight_service.core.errors import InvalidRequestError
from safelight_service.grpc_server.metadata import parse_flag

KEY = "x-wait-for-model"


@pytest.mark.parametrize("value", ["1", "true", "TRUE", " True "])
def test_true_is_read_loosely(value: str) -> None:
    assert parse_flag([(KEY, value)], KEY, default=False)


@pytest.mark.parametrize("value", ["0", "false", "False"])
def test_false_is_read_loosely(value: str) -> None:
    assert not parse_flag([(KEY, value)], KEY, default=True)


def test_an_absent_flag_has_its_default() -> None:
    assert parse_flag([("other", "0")], KEY, default=True)


def test_anything_else_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequestError, match=r"x-wait-for-model: must be true or false.*yes"):
        parse_flag([(KEY, "yes")], KEY, default=True)
