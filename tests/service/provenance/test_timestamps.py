"""Timestamps: an authority that fails is asked again later, by one thread."""

from safelight_service.provenance.timestamps import PAUSE_S, Timestamps


def test_a_failing_authority_is_asked_once_in_a_while() -> None:
    now = 0.0
    timestamps = Timestamps("http://a", lambda: now)
    assert [timestamps.claim() for _ in range(3)] == ["http://a"] * 3
    assert timestamps.note(is_failing=True)
    assert not timestamps.note(is_failing=True)
    assert timestamps.claim() is None
    now += PAUSE_S
    assert timestamps.claim() == "http://a"
    assert timestamps.claim() is None
    assert timestamps.note(is_failing=False)
    assert [timestamps.claim() for _ in range(3)] == ["http://a"] * 3


def test_there_may_be_no_authority() -> None:
    assert Timestamps(None).claim() is None
