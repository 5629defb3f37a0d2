"""Files: images that answers link to, within bounds of memory and time."""

from safelight_gateway.settings import FileSettings
from safelight_gateway.stores.files import FileStore
from tests.gateway.stores.images import image


def test_oldest_file_goes_when_there_is_no_room() -> None:
    store = FileStore(FileSettings(keep_mib=1))
    names = [store.put(image(bytes(400_000)), "a") for _ in range(3)]
    assert [store.get(name) is not None for name in names] == [False, True, True]


def test_file_goes_when_its_time_is_over() -> None:
    store = FileStore(FileSettings(keep_s=1e-9))
    assert store.get(store.put(image(b"x"), "a")) is None


def test_names_of_files_cannot_be_guessed() -> None:
    store = FileStore(FileSettings())
    names = {store.put(image(b"x"), "a") for _ in range(100)}
    assert len(names) == 100
    assert all(len(name.removesuffix(".png")) >= 32 for name in names)


def test_a_holder_that_stores_more_breaks_only_its_own_links() -> None:
    store = FileStore(FileSettings(keep_mib=1))
    link = store.put(image(bytes(400_000)), "a")
    flood = [store.put(image(bytes(400_000)), "b") for _ in range(6)]
    assert store.get(link) is not None
    assert [store.get(name) is not None for name in flood] == [False] * 5 + [True]


def test_tiny_files_count_for_what_they_take() -> None:
    store = FileStore(FileSettings(keep_mib=1))
    names = [store.put(image(b"x"), "a") for _ in range(2000)]
    assert sum(store.get(name) is not None for name in names) < 1100
