"""Lines of runners are compared by their meaning."""

import json
from typing import Any

import pytest

from clients.conformance.lines import compare_lines

IMAGE = {"image": {"width": 16, "size_bytes": "3"}}
SHA256 = "ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc"
"""Of the bytes 0, 1 and 2."""
ERROR = {"error": {"code": "NOT_FOUND", "reason": "MODEL_NOT_FOUND"}}
VIOLATION = {"error": {"violations": [{"description": "b", "field": "a"}]}}


@pytest.mark.parametrize(
    ("method", "expected", "found"),
    [
        ("Generate", {"progress": {"step_count": 4}}, {"progress": {"stepCount": 4, "step": 0}}),
        ("Generate", {"accepted": {}}, {"accepted": {"generationId": "x", "parameters": {}}}),
        ("Generate", {"completed": {}}, {"completed": {"cache": 99, "timings": {"queue": "0s"}}}),
        ("Generate", IMAGE, {"image": {**IMAGE["image"], "sha256": SHA256}, "received": SHA256}),
        ("CancelGeneration", {}, {"state": "GENERATION_STATE_UNSPECIFIED"}),
        ("Generate", VIOLATION, {"error": {"violations": [{"field": "a", "description": "b"}]}}),
        ("Generate", ERROR, {"error": {**ERROR["error"], "message": "any", "violations": []}}),
    ],
)
def test_line_is_the_same(method: str, expected: dict[str, Any], found: dict[str, Any]) -> None:
    assert compare_lines(method, [expected], [json.dumps(found)]) == []


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ({"progress": {"step": 1}}, {"progress": {"step": 2}}),
        ({"completed": {}}, {"progress": {}}),
        ({"accepted": {"parameters": {"seed": "0"}}}, {"accepted": {"parameters": {}}}),
        (IMAGE, {"image": {**IMAGE["image"], "sha256": SHA256}}),
        (IMAGE, {"image": {**IMAGE["image"], "sha256": SHA256}, "received": SHA256[::-1]}),
        (ERROR, {"error": {"code": "NOT_FOUND"}}),
        ({"error": {"code": "UNKNOWN", "message": "a"}}, {"error": {"code": "UNKNOWN"}}),
        ({"progress": {}}, {"progress": {"steps": 1}}),
        (ERROR, {"error": {**ERROR["error"], "retry": 1}}),
    ],
)
def test_line_differs(expected: dict[str, Any], found: dict[str, Any]) -> None:
    assert len(compare_lines("Generate", [expected], [json.dumps(found)])) == 1


def test_lines_that_are_missing_or_too_many_are_differences() -> None:
    assert len(compare_lines("Generate", [ERROR, ERROR], ["no JSON"])) == 2
    assert len(compare_lines("Generate", [], [json.dumps(ERROR)])) == 1
