"""Random numbers that depend on what they are for, and on nothing else.

Each use has a key of its own, so that no draw can shift another: any machine can rebuild any
mask, projection or start from a few numbers, in any order.
"""

import hashlib

import numpy as np


def bits(*purpose: str | int | None) -> np.random.Philox:
    """The counter-based generator of a purpose, e.g. `bits("mask", seed, 3, "ffn-output/0")`.

    The key is the first 128 bits of the SHA-256 of the purpose; Philox4x64 is the generator of
    Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (2011).
    """
    text = "\x1f".join(str(part) for part in purpose)
    return np.random.Philox(
        key=int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    )


def generator(*purpose: str | int | None) -> np.random.Generator:
    """A numpy generator over the bits of a purpose."""
    return np.random.Generator(bits(*purpose))
