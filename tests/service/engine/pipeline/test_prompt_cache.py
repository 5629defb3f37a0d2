import torch

from safelight_service.engine.pipeline.prompt_cache import Memo, count_bytes


def test_results_are_made_once() -> None:
    made: list[int] = []
    memo = Memo(1000)
    for _ in range(2):
        memo.get("key", lambda: made.append(1))
    assert made == [1]


def test_the_least_recently_used_result_is_forgotten_first() -> None:
    memo = Memo(3 * 40)
    for key in ("a", "b", "c", "a", "d"):
        memo.get(key, lambda: torch.zeros(10))
    remembered = {key for key in "abcd" if memo.get(key, lambda: None) is not None}
    assert remembered == {"a", "c", "d"}
    assert memo.size_bytes == 120


def test_a_result_larger_than_the_memo_is_not_kept() -> None:
    memo = Memo(100)
    memo.get("large", lambda: torch.zeros(1000))
    assert memo.size_bytes == 0
    assert memo.get("large", lambda: "anew") == "anew"


def test_bytes_of_nested_results_are_all_counted() -> None:
    row = torch.zeros(2, dtype=torch.float16)
    assert count_bytes({"states": (row, [row, None]), "name": "x"}) == 8
