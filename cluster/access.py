"""The token that a Ray with authentication asks for: where it lies, and who may read it."""

import os
from pathlib import Path

ENTRY = (
    "A Ray that asks for a token needs RAY_AUTH_MODE=token here, and its token in "
    "~/.ray/auth_token or RAY_AUTH_TOKEN."
)


def protect_token() -> str | None:
    """Ray leaves its token readable by all; make it its owner's alone, or say why that is not so.

    Only a file counts: a token in RAY_AUTH_TOKEN comes before it, and is its giver's affair.
    """
    given = os.environ.get("RAY_AUTH_TOKEN_PATH")
    token = Path(given).expanduser() if given else Path.home() / ".ray" / "auth_token"
    try:
        known = token.stat()
        if known.st_mode & 0o077 == 0:
            return None
        if known.st_uid == os.getuid():
            token.chmod(0o600)
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"the token in {token} cannot be protected: {error.strerror}."
    return (
        f"the token in {token} may be read by others than its owner, who is not you: use a file "
        "of your own with mode 600, named by RAY_AUTH_TOKEN_PATH."
    )
