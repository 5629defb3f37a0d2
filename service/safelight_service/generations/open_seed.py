"""OpenSeed: the seed and the run key of a request that names its generation."""

import hashlib


def derive_seed(owner: str, generation_id: str) -> int:
    """Return a seed of 32 bits, always the same for an owner's id.

    So a generation that runs again under its id makes the same images, even in another process.
    """
    digest = hashlib.sha256(f"{owner}\0{generation_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def derive_run_key(owner: str, generation_id: str) -> str:
    """Return the run key of an owner's id, from which neither can be read."""
    return hashlib.sha256(f"run\0{owner}\0{generation_id}".encode()).hexdigest()
