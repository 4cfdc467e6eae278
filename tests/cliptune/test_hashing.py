"""Equal contents have equal names."""

import hashlib

from cliptune.hashing import digest


def test_a_digest_is_of_the_value_not_of_the_order_of_its_keys() -> None:
    assert digest({"b": [1.5], "a": "é"}) == digest({"a": "é", "b": [1.5]})
    assert digest({"a": "é"}) == hashlib.sha256('{"a":"é"}'.encode()).hexdigest()
