"""The disk's edge: files that are there whole or not at all, folders that go with their process, a user's home."""

from cnn_jax.files.home import at_home, cache_root, expanded, provide_home, writable
from cnn_jax.files.scratch import new_folder, temporary_folder
from cnn_jax.files.writing import is_stream, write_file

__all__ = [
    "at_home",
    "cache_root",
    "expanded",
    "is_stream",
    "new_folder",
    "provide_home",
    "temporary_folder",
    "writable",
    "write_file",
]
