"""Hypothesis strategies for the geometries of convolutions and pools, kept small: compiling each one takes the time."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

SPATIAL = {1: 8, 2: 6, 3: 4}


def ints(low, high, rank):
    return st.lists(st.integers(low, high), min_size=rank, max_size=rank).map(tuple)


def one_or_each(low, high, rank):
    """What a user may write, an int or one per dimension, and the tuple that it means."""
    return st.one_of(
        st.integers(low, high).map(lambda n: (n, (n,) * rank)),
        ints(low, high, rank).map(lambda t: (t, t)),
    )


def paddings(modes, low, high, rank):
    """What a user may write for a padding, and the list of modes or pairs, one per dimension, that it means."""
    entry = st.one_of(st.integers(low, high), ints(low, high, 2))
    return st.one_of(
        st.sampled_from(modes).map(lambda mode: (mode, [mode] * rank)),
        st.integers(low, high).map(lambda n: (n, [(n, n)] * rank)),
        st.lists(entry, min_size=rank, max_size=rank).map(
            lambda given: (given, [(e, e) if isinstance(e, int) else e for e in given])
        ),
    )


ranks = st.integers(1, 3)
batches = st.sampled_from([(), (1,), (2,), (3,), (2, 1), (2, 2), (1, 2, 1)])
seeds = st.integers(0, 2**32 - 1)


def normal(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]
