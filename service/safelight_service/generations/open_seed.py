"""OpenSeed: the seed of a request that names its generation and leaves the seed open."""

import hashlib


def derive_seed(owner: str, generation_id: str) -> int:
    """Return a seed of 32 bits, always the same for an owner's id.

    So a generation that runs again under its id makes the same images, even in another process.
    """
    digest = hashlib.sha256(f"{owner}\0{generation_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
