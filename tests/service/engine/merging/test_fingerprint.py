"""Fingerprints of values and tensors."""

import torch

from safelight_service.engine.merging.fingerprint import fingerprint


def test_fingerprints_see_content_layout_and_changes_in_place() -> None:
    tensor = torch.zeros(2, 3)
    before = fingerprint(tensor)
    assert before == fingerprint(torch.zeros(2, 3))
    assert before != fingerprint(torch.zeros(3, 2))
    assert before != fingerprint(torch.zeros(2, 3, dtype=torch.bfloat16))
    tensor[0, 0] = 1
    assert fingerprint(tensor) != before
    assert fingerprint({"a": [1, None]}) == fingerprint({"a": (1, None)})
