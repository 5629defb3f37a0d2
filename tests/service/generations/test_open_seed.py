"""Seeds that requests leave open, by the owner and the id of the generation."""

from safelight_service.generations.open_seed import derive_seed


def test_the_seed_of_an_id_is_the_same_in_every_version_and_process() -> None:
    assert derive_seed("", "a") == 36333945
    assert derive_seed("billing", "a") == derive_seed("billing", "a")


def test_other_owners_and_ids_have_other_seeds() -> None:
    places = [("", "a"), ("", "b"), ("x", "a"), ("a", "x"), ("xa", ""), ("x", "a.")]
    assert len({derive_seed(*place) for place in places}) == len(places)
    assert all(0 <= derive_seed(*place) < 2**32 for place in places)
