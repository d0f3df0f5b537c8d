"""Convolution and transposed convolution, in one, two and three spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike
from jax.typing import DTypeLike

from cnn_jax import lowering
from cnn_jax.functional import arguments
from cnn_jax.functional.arguments import Padding, Pairs

CONV_PADDINGS = ("SAME", "VALID", "CIRCULAR", "REFLECT", "CAUSAL")
TRANSPOSE_PADDINGS = ("SAME", "VALID", "CIRCULAR")
REPEATING_PADDINGS = {"CIRCULAR": "wrap", "REFLECT": "reflect"}  # of input elements and not zeros; NumPy's names


def conv(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    strides: int | Sequence[int] | None = 1,
    padding: Padding = "SAME",
    input_dilation: int | Sequence[int] | None = 1,
    kernel_dilation: int | Sequence[int] | None = 1,
    feature_group_count: int = 1,
    precision: PrecisionLike = None,
) -> jax.Array:
    """Convolution: the sum, over a patch of the input, of the input times the kernel (which is not flipped).

    In one dimension, with input x, kernel w, stride s, kernel dilation d and `low` padding,
    `y[i, o] = bias[o] + sum over k, c of x[i * s + k * d - low, c] * w[k, c, o]`. This is `flax.linen.Conv`
    as a function.

    An output errs by rounding of what its window sees, whatever lies beside that. On a CPU two things differ from XLA's
    own convolution: a wide 3x3 one is filtered by Winograd's F(2x2, 3x3), which rounds about one and a half times as
    much and makes NaN of an infinity that it sees; and one of few input channels may make NaN of up to three outputs
    beside those that see an infinity or NaN, in the same row. Neither reaches another image.

    Args:
      x: input (*batch, *spatial, I), with one, two or three spatial dimensions (as many as the kernel has) and any
        number of batch dimensions, also none.
      kernel: (*window, I / feature_group_count, O).
      bias: (O,) or None.
      strides: step of the window, an int or one per dimension.
      padding: `'VALID'`, none; `'SAME'`, zeros so that ceil(size / stride) outputs remain; `'CIRCULAR'`, the input
        repeated periodically; `'REFLECT'`, the input mirrored about its border elements; `'CAUSAL'` (one dimension),
        zeros before so that no output sees later inputs; an int, as many zeros on every side (negative crops);
        or a sequence with an int or a (low, high) pair per dimension.
      input_dilation: spacing of the input's elements, between which zeros are put before padding. `'CIRCULAR'` and
        `'REFLECT'` have no meaning on such an input and are refused.
      kernel_dilation: spacing of the kernel's elements.
      feature_group_count: number of groups into which input and output channels are divided; output group g sees
        input group g alone.
      precision: as in `jax.lax.conv_general_dilated`. "highest", also as JAX's own setting
        (`jax.default_matmul_precision("highest")`), leaves out Winograd's filtering; `lowering.use("direct")` all that
        is not XLA's own.

    Returns:
      (*batch, *out, O), in the common dtype of x, kernel and bias; integers are first converted to float32.

    Raises:
      ValueError: in one line, for shapes that do not go together, a malformed argument, or a window larger than the
        padded input.
    """
    x, kernel, bias = arguments.promote(x, kernel, bias)
    window = _kernel_window("conv", kernel)
    rank = len(window)
    x, batch = arguments.split_batch("conv", x, rank)
    groups = arguments.positive("conv", "feature_group_count", feature_group_count)
    _check_channels("conv", x.shape[-1], kernel.shape[-2], kernel.shape[-1], bias, groups)
    strides = arguments.per_dimension("conv", "strides", strides, rank)
    input_dilation = arguments.per_dimension("conv", "input_dilation", input_dilation, rank)
    kernel_dilation = arguments.per_dimension("conv", "kernel_dilation", kernel_dilation, rank)
    mode = arguments.padding_mode("conv", padding, CONV_PADDINGS, rank)

    extents = tuple(map(arguments.dilate, window, kernel_dilation))
    sizes = tuple(map(arguments.dilate, x.shape[1:-1], input_dilation))
    pairs = conv_padding(mode, sizes, extents, strides)
    if mode in REPEATING_PADDINGS:
        x = _pad_by_input(x, str(mode), pairs, input_dilation)
        sizes, pairs = x.shape[1:-1], ((0, 0),) * rank
    arguments.output_shape("conv", sizes, extents, strides, pairs)
    y = lowering.conv(
        x,
        kernel,
        strides=strides,
        padding=pairs,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=None,
    )
    return arguments.restore_batch(y if bias is None else lowering.add_bias(y, bias), batch)


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] | None = None,
    transpose_kernel: bool = False,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> jax.Array:
    """Transposed convolution: the input spread out by the strides, then convolved with stride one.

    This is `flax.linen.ConvTranspose` as a function. With `transpose_kernel=True` and 'SAME' or 'VALID' it is the
    gradient of `conv` with the same kernel, strides and padding with respect to that convolution's input.

    Args:
      x: input (*batch, *spatial, I), with one, two or three spatial dimensions and any number of batch dimensions.
      kernel: (*window, I, O), or (*window, O, I) with `transpose_kernel`.
      bias: (O,) or None.
      strides: factor by which the output is larger, an int or one per dimension; None is 1.
      padding: `'SAME'`, output size * stride; `'VALID'`, every output that some input reaches, at least
        size * stride; `'CIRCULAR'`, that output wrapped around the period size * stride; an int, a sequence of ints,
        or (low, high) pairs: zeros around the spread-out input itself (so more padding is a *larger* output).
      kernel_dilation: spacing of the kernel's elements; None is 1.
      transpose_kernel: flip the kernel's spatial axes and swap its channel axes.
      precision: as in `jax.lax.conv_general_dilated`.
      preferred_element_type: dtype to accumulate in and return; None is the dtype of the operands.

    Returns:
      (*batch, *out, O).

    Raises:
      ValueError: in one line, for shapes that do not go together, a malformed argument, or a window larger than the
        padded input.
    """
    x, kernel, bias = arguments.promote(x, kernel, bias)
    window = _kernel_window("conv_transpose", kernel)
    rank = len(window)
    x, batch = arguments.split_batch("conv_transpose", x, rank)
    if transpose_kernel:
        kernel = jnp.flip(kernel, range(rank)).swapaxes(-1, -2)
    _check_channels("conv_transpose", x.shape[-1], kernel.shape[-2], kernel.shape[-1], bias, 1)
    strides = arguments.per_dimension("conv_transpose", "strides", strides, rank)
    kernel_dilation = arguments.per_dimension("conv_transpose", "kernel_dilation", kernel_dilation, rank)
    mode = arguments.padding_mode("conv_transpose", padding, TRANSPOSE_PADDINGS, rank)

    extents = tuple(map(arguments.dilate, window, kernel_dilation))
    sizes = tuple(map(arguments.dilate, x.shape[1:-1], strides))
    ones = (1,) * rank
    pairs = transpose_padding(mode, extents, strides)
    arguments.output_shape("conv_transpose", sizes, extents, ones, pairs)
    y = lowering.conv(
        x,
        kernel,
        strides=ones,
        padding=pairs,
        input_dilation=strides,
        kernel_dilation=kernel_dilation,
        feature_group_count=1,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    if mode == "CIRCULAR":
        periods = [size * stride for size, stride in zip(x.shape[1:-1], strides, strict=True)]
        y = _wrap(y, periods, transpose_kernel)
    return arguments.restore_batch(y if bias is None else lowering.add_bias(y, bias), batch)


def _kernel_window(caller: str, kernel: jax.Array) -> tuple[int, ...]:
    rank = kernel.ndim - 2
    if not 1 <= rank <= arguments.MAX_SPATIAL_DIMENSIONS or 0 in kernel.shape:
        raise ValueError(
            f"{caller}: kernel must have one to three spatial dimensions and then (in, out) channels, none empty, "
            f"got shape {kernel.shape}"
        )
    return kernel.shape[:-2]


def _check_channels(
    caller: str, inputs: int, kernel_in: int, outputs: int, bias: jax.Array | None, groups: int
) -> None:
    if kernel_in * groups != inputs:
        suffix = f" (feature_group_count={groups})" if caller == "conv" else ""
        raise ValueError(f"{caller}: kernel has {kernel_in} input channels, input has {inputs}{suffix}")
    if outputs % groups:
        raise ValueError(f"{caller}: {outputs} output channels cannot be divided into feature_group_count={groups}")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"{caller}: bias must have shape ({outputs},), one per output channel, got {bias.shape}")


def conv_padding(mode: str | Pairs, sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int]) -> Pairs:
    """How many elements stand before and after each dimension in a padding mode of `conv`."""
    if mode == "SAME":
        return tuple(map(arguments.same, sizes, extents, strides))
    if mode == "VALID":
        return ((0, 0),) * len(sizes)
    if mode == "CAUSAL":
        if len(sizes) != 1:
            raise ValueError(f"conv: padding 'CAUSAL' needs one spatial dimension, kernel has {len(sizes)}")
        return ((extents[0] - 1, 0),)
    if mode in REPEATING_PADDINGS:
        return tuple(((extent - 1) // 2, extent // 2) for extent in extents)
    assert not isinstance(mode, str)
    return mode


def _pad_by_input(x: jax.Array, mode: str, pairs: Pairs, input_dilation: Sequence[int]) -> jax.Array:
    if any(d != 1 for d in input_dilation):
        raise ValueError(f"conv: padding {mode!r} cannot go with input_dilation={tuple(input_dilation)}")
    if 0 in x.shape[1:-1]:
        raise ValueError(f"conv: padding {mode!r} needs an input that is not empty, got shape {x.shape}")
    return jnp.pad(x, [(0, 0), *pairs, (0, 0)], mode=REPEATING_PADDINGS[mode])


def transpose_padding(mode: str | Pairs, extents: Sequence[int], strides: Sequence[int]) -> Pairs:
    """Zeros around the spread-out input; for 'SAME' the convention of Keras' Conv2DTranspose, as in jax.lax."""
    if not isinstance(mode, str):
        return mode
    pairs = []
    for extent, stride in zip(extents, strides, strict=True):
        if mode == "SAME":
            total = extent + stride - 2
            low = min(extent - 1, (total + 1) // 2)
        else:
            total = extent - 1 + max(extent, stride) - 1
            low = extent - 1
        pairs.append((low, total - low))
    return tuple(pairs)


def _wrap(y: jax.Array, periods: Sequence[int], transpose_kernel: bool) -> jax.Array:
    """Adds what lies outside one period of each spatial axis of y (N, *spatial, O) back into it.

    Half of the excess lies before the period and half after it. An odd element goes after it, or before it where the
    kernel is transposed. So Linen has it; with a transposed kernel the result is the transpose of a circular `conv`
    at stride two, and for windows of odd extent at stride one.
    """
    for axis, period in enumerate(periods, start=1):
        excess = y.shape[axis] - period
        before = (excess + 1) // 2 if transpose_kernel else excess // 2
        y = _pad_axis(y, axis, -excess % period)
        y = y.reshape(*y.shape[:axis], -1, period, *y.shape[axis + 1 :]).sum(axis)
        y = jnp.roll(y, -before, axis)
    return y


def _pad_axis(y: jax.Array, axis: int, count: int) -> jax.Array:
    return jnp.pad(y, [(0, count if a == axis else 0) for a in range(y.ndim)])
