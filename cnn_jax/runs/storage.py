"""Writing that fails: from the many shapes of what the system says to one `StorageError`."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from cnn_jax.errors import InputError, StorageError


def system_reason(error: Exception) -> str | None:
    """What the system said, "No space left on device"; None where the error is not the system's.

    Orbax hands on the errors of TensorStore, which have the system's number in their text.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(found[1])) if found else None


@contextlib.contextmanager
def storing(path: Path, what: str = "") -> Iterator[None]:
    """Raises a `StorageError` about `path` where writing within fails for a reason of the system's."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = system_reason(error)
        if reason is None:
            raise
        raise StorageError(f"{path}: {what}cannot be written ({reason})") from None
