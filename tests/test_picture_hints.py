"""What is no picture that can be read is called by its name, with what to do."""

from __future__ import annotations

import pytest

from cnn_jax.data.pictures import find_pictures, open_picture
from cnn_jax.errors import InputError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "got HEIC; save it as JPEG or PNG"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(99), "got AVIF; save it as JPEG or PNG"),
        (b"%PDF-1.7\n" + bytes(99), "got PDF; save the page as PNG"),
        (b"I am text\n" * 9, "expected a PNG, JPEG, GIF, BMP, TIFF or WebP picture"),
    ],
)
def test_a_hint_for_each_kind(tmp_path, content, said):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match=said):
        open_picture(tmp_path / "x.png")


def test_pictures_of_phones_are_not_passed_over_in_a_folder(tmp_path):
    for name in ("a.png", "b.HEIC", "c.avif", "d.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in find_pictures((tmp_path,))[0]] == ["a.png", "b.HEIC", "c.avif"]
