"""Tokenizer: any text that people type."""

from training.networks.tokenizer import MAX_TOKENS, build_tokenizer


def test_case_and_punctuation_make_no_difference() -> None:
    tokenizer = build_tokenizer()
    plain = tokenizer("a red circle on a blue background").input_ids
    assert tokenizer("  A RED circle, on a (blue) background!! ").input_ids == plain
    assert tokenizer("red-coloured").input_ids == tokenizer("red coloured").input_ids


def test_an_unknown_word_is_one_unknown_token() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer("a zeppelin").input_ids.count(tokenizer.unk_token_id) == 1
    assert tokenizer("飛行船").input_ids.count(tokenizer.unk_token_id) == 1


def test_an_empty_prompt_is_start_and_end_alone() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer("").input_ids == [tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert tokenizer("?!").input_ids == tokenizer("").input_ids


def test_long_prompts_are_cut() -> None:
    tokenizer = build_tokenizer()
    numbers = tokenizer("red " * 100, truncation=True, max_length=MAX_TOKENS).input_ids
    assert len(numbers) == MAX_TOKENS
    assert numbers[-1] == tokenizer.eos_token_id
