"""What one extreme number does to the results: nothing, where it is not seen."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.lowering import bilinear, choice
from tests import quick
from tests.geometries import normal
from tests.test_lowerings import REFERENCE, make_geometry, operands

PADDED = ((1, 1), (1, 1))
BLOCK = 3
CASES = {
    # geometry, (images, inputs, outputs), ways of each operation
    "3x3": (make_geometry((6, 7), (3, 3), (1, 1), PADDED), (3, 2, 4), ("banded", "taps", "winograd")),
    "one channel": (make_geometry((6, 7), (3, 3), (1, 1), PADDED), (3, 1, 4), ("shifted", "toeplitz")),
    "strided": (make_geometry((8, 8), (4, 4), (2, 2), PADDED), (3, 2, 4), ("banded", "taps", "folded")),
    "strided, odd": (make_geometry((8, 8), (3, 3), (2, 2), PADDED), (3, 2, 4), ("completed",)),
}
PLACE = (1, 2, 3, 0)


def inner(way):
    return lambda a, b, geometry: way(a, b, geometry=geometry)


def results(case):
    """A compiled function of images, kernel and cotangents: by operation and way, what it gives."""
    geometry, _, names = CASES[case]

    def everything(arrays):
        found = {}
        for operation, ways in bilinear.WAYS.items():
            weighs = operation == "weight_gradient"
            for name in names:
                arguments = {
                    "banded": {"block": BLOCK, "tiles": 1},
                    "toeplitz": {"block": BLOCK},
                    "winograd": {"tiles": 1},
                    "folded": {"axes": (0, 1), "inner": inner(ways["taps"])},
                    "completed": {"axes": (0, 1), "inner": inner(ways["taps"])},
                }.get(name, {})
                arguments |= {"winograd": {"side": 4}, "shifted": {"tiles": 1}}.get(name, {}) if weighs else {}
                split = name == "shifted" and operation == "input_gradient" and geometry.groups == 1  # in no groups
                if name in ways and not split:
                    found[operation, name] = ways[name](*operands(operation, arrays), geometry=geometry, **arguments)
        return found

    compiled = quick.jit(everything)
    return lambda arrays: jax.device_get(compiled([jnp.asarray(a, jnp.float32) for a in arrays]))


def make_arrays(case):
    geometry, (n, i, o), _ = CASES[case]
    return normal(0, (n, *geometry.size, i), (*geometry.window, i, o), (n, *geometry.out, o))


def near(seen, axis, distance):
    """`seen` (N, h, w, C), and what is so near to it in a dimension."""
    wide = np.pad(seen, [(distance, distance) if axis == n else (0, 0) for n in range(seen.ndim)])
    runs = [wide.take(range(k, k + seen.shape[axis]), axis) for k in range(2 * distance + 1)]
    return np.any(runs, axis=0)


@pytest.mark.parametrize("case", list(CASES))
def test_an_output_depends_on_nothing_that_its_window_does_not_see(case):
    geometry, _, _ = CASES[case]
    run, arrays = results(case), make_arrays(case)
    before = run(arrays)
    marked = [np.zeros_like(arrays[0]), np.ones_like(arrays[1]), np.zeros_like(arrays[2])]
    marked[0][PLACE] = marked[2][PLACE] = 1
    for value in (1e4, 1e30, np.inf, np.nan):
        poisoned = [arrays[0].copy(), arrays[1], arrays[2].copy()]
        poisoned[0][PLACE] = poisoned[2][PLACE] = value
        for (operation, name), result in run(poisoned).items():
            if operation == "weight_gradient":  # of which each number sees all images
                continue
            seen = REFERENCE[operation](*operands(operation, marked), geometry) > 0
            assert (np.isfinite(result[seen]) == np.isfinite(value)).all()
            if name in ("banded", "toeplitz") and not np.isfinite(value):  # zeros meet the neighbours in a row: NaN
                seen = near(seen, 2, (BLOCK - 1) * geometry.strides[1])
            if name == "completed" and not np.isfinite(value):  # and so do those behind a window
                seen = near(near(seen, 1, geometry.strides[0] - 1), 2, geometry.strides[1] - 1)
            np.testing.assert_array_equal(result[~seen], before[operation, name][~seen], f"{operation}, {name}")


@pytest.mark.parametrize("case", list(CASES))
def test_nothing_overflows_on_the_way(case):
    run, (x, kernel, y) = results(case), make_arrays(case)
    plain, large = run([x, kernel, y]), run([x * 2.0**99, kernel, y])  # 6e29
    for key, result in large.items():
        if key[0] != "input_gradient":
            np.testing.assert_array_equal(result, plain[key] * np.float32(2.0**99), str(key))
    for key, result in run([x, kernel, y * 2.0**99]).items():
        if key[0] != "conv":
            np.testing.assert_array_equal(result, plain[key] * np.float32(2.0**99), str(key))


@pytest.mark.parametrize("largest", [1e4, 1e6])
@pytest.mark.parametrize("operation", ["conv", "input_gradient"])
def test_outputs_beside_large_activations_err_no_more_than_others(operation, largest):
    geometry = make_geometry((8, 8), (3, 3), (1, 1), PADDED)
    sizes = (1, 64, 128, 128)
    name, arguments = choice.choose(operation, geometry, sizes, jnp.float32)
    assert name == "winograd"
    a, kernel = (array.astype(np.float32) for array in normal(0, (1, 8, 8, 128), (3, 3, 128, 128)))
    a[:, 3, 4] *= largest  # all channels of one place
    a[:, 0] *= largest  # and a row at the edge
    way = functools.partial(bilinear.WAYS[operation][name], geometry=geometry, **arguments | {"tiles": 1})
    found = np.asarray(quick.jit(way)(a, kernel), np.float64)
    expected = REFERENCE[operation](a.astype(np.float64), kernel.astype(np.float64), geometry)
    unseen = REFERENCE[operation]((abs(a) > 100).astype(np.float64), np.ones_like(kernel), geometry) == 0
    assert 0.3 < unseen.mean() < 0.9
    assert abs(found - expected)[unseen].max() < 1e-5 * expected[unseen].std()
