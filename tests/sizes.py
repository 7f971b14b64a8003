"""How large random tests are: small in CI, and ten times that with S3MOUNT_TESTS=full."""

import os

FULL = 10 if os.environ.get("S3MOUNT_TESTS") == "full" else 1


def examples(in_ci: int) -> int:
    """How many examples or seeds to try."""
    return in_ci * FULL
