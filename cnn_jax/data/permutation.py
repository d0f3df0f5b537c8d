"""The order of the examples in an epoch: a permutation that follows from a seed and the epoch's number alone.

Up to `LARGEST` examples it is an array, the order of as many raw outputs of NumPy's Philox, which NumPy guarantees to
stay the same. Above, arrays of every epoch would take gigabytes and seconds, so a keyed permutation takes their place,
of which any part is computed by itself: a Feistel network (Luby and Rackoff 1988, "How to construct pseudorandom
permutations from pseudorandom functions") permutes the numbers of an even number of bits, and one that is not below the
number of examples is permuted again until it is, which leaves a permutation of the examples ("cycle walking": Black and
Rogaway 2002, "Ciphers with arbitrary finite domains", section 3).
"""

from __future__ import annotations

import numpy as np

LARGEST = 2**24  # examples whose order is an array
KEYED = "feistel-8"  # what config.json calls the other
_ROUNDS = 8  # four are enough with ideal functions; more make up for one that is not
_TIMES = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


def permutation(seed: int, n: int, epoch: int, largest: int = LARGEST) -> np.ndarray | KeyedPermutation:
    """The order of n examples in an epoch; a slice of it is an int64 array."""
    key = np.array([seed, epoch], np.uint64)
    return np.argsort(raw(key, n), kind="stable") if n <= largest else KeyedPermutation(key, n)


def raw(key: np.ndarray, count: int) -> np.ndarray:
    """The first outputs of Philox for a key, uint64 (2,): uint64 (count,)."""
    return np.random.Philox(key=key).random_raw(count)


class KeyedPermutation:
    """A permutation of the numbers from 0 to n - 1 that takes no memory.

    Args:
      key: uint64 (2,).
      n: how many there are.
    """

    def __init__(self, key: np.ndarray, n: int):
        self._n, self._keys = n, raw(key, _ROUNDS)
        # Of each half, so that the whole has an even number of bits and less than four times as many numbers as needed.
        self._bits = max(1, -(-(n - 1).bit_length() // 2))

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, places: slice) -> np.ndarray:
        """What comes in some places: int64."""
        values = np.arange(*places.indices(self._n), dtype=np.uint64)
        values = self._network(values)
        while len(outside := np.flatnonzero(values >= self._n)):
            values[outside] = self._network(values[outside])
        return values.astype(np.int64)

    def _network(self, values: np.ndarray) -> np.ndarray:
        bits, mask = np.uint64(self._bits), np.uint64((1 << self._bits) - 1)
        left, right = values >> bits, values & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return (left << bits) | right


def _mixed(values: np.ndarray) -> np.ndarray:
    """Numbers whose every bit depends on all of those given: what ends splitmix64 (Steele et al. 2014, figure 19)."""
    values = (values ^ (values >> np.uint64(30))) * _TIMES[0]
    values = (values ^ (values >> np.uint64(27))) * _TIMES[1]
    return values ^ (values >> np.uint64(31))
