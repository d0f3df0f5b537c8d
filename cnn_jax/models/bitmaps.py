"""The ten digits as drawn in 7x12 cells, the centres of LeNet-5's radial basis units.

LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998), Figure 3, which
shows all printable ASCII characters. Those that are easily confused are drawn alike, so that a wrong one is at least
near; 0, 2, 4 and 5 stand lower than the other digits, with a bar above them.
"""

from __future__ import annotations

import numpy as np

_DIGITS = (
    """
    .#####. ...##.. .#####. ####### .#####.
    ....... ..###.. ....... .....## .......
    ..###.. .####.. .#####. ....##. .......
    .##.##. ...##.. ##...## ...##.. .##..##
    ##...## ...##.. #....## ..####. .##..##
    ##...## ...##.. ....##. .....## ###..##
    ##...## ...##.. ..###.. .....## ##...##
    ##...## ...##.. .##.... .....## ##...##
    .##.##. ...##.. ##..... ##...## ##..###
    ..###.. .###### ####### .#####. .######
    ....... ....... ....... ....... .....##
    ....... ....... ....... ....... .....##
    """,
    """
    .#####. ..####. ####### .#####. .#####.
    ....... .##.... .....## ##...## ##..###
    ####### ##..... .....## ##...## ##...##
    ##..... ##..... ....##. ##...## ##...##
    ##..... ######. ...##.. .#####. ##..###
    .####.. ###..## ...##.. ##...## .######
    ..####. ##...## ..##... ##...## .....##
    .....## ##...## ..##... ##...## .....##
    ##...## ###..## ..##... ##...## ....##.
    .#####. .#####. ..##... .#####. .####..
    ....... ....... ....... ....... .......
    ....... ....... ....... ....... .......
    """,
)


def digit_bitmaps() -> np.ndarray:
    """The bitmaps of 0 to 9, float32 (10, 84), each row by row from the top: 1 where there is ink, -1 elsewhere."""
    rows = np.array([[list(row) for row in line.split()] for half in _DIGITS for line in half.strip().splitlines()])
    ink = rows.reshape(2, 12, 5, 7).swapaxes(1, 2).reshape(10, 84) == "#"
    return np.where(ink, 1, -1).astype(np.float32)
