"""Programs for the CPU whose convolutions and products are oneDNN's, those that PyTorch has too."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import get_opaque_trace_state

from cnn_jax.lowering.choice import use

# XLA:CPU is built with oneDNN for x86, but asks YNNPACK first. That keeps its sums, without which a step of ResNet-18
# takes 1.3 times as long, and its products, which are as fast as oneDNN's: it refuses those with a transposed left
# operand, and these are oneDNN's then.
_OPTIONS: dict[str, bool | str] = {
    "xla_cpu_experimental_onednn_custom_call": True,
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT",
}
# JAX's state where nothing is traced.
with jax.core.eval_context():
    _OUTSIDE = get_opaque_trace_state(convention="nnx")


def compiler_options() -> dict[str, bool | str]:
    """The options that `jit` compiles with: on the CPU, convolutions and products by oneDNN.

    Empty where the default backend is not a CPU, or its XLA has no oneDNN that it can be made to take; to find out, a
    small convolution is compiled once. They are experimental options of XLA's, and a program compiled with them is not
    kept in JAX's persistent compilation cache, since XLA has no way yet to write one down; where that cache is on, JAX
    warns of it. oneDNN 3.12 errs, or ends the process, in convolutions whose windows can lie in padding alone or are
    wider than the image; those of `cnn_jax.functional` and `lowering.conv_general_dilated` are kept from that, but
    others in the same program are not.
    """
    return dict(_OPTIONS) if jax.default_backend() == "cpu" and _has_onednn() else {}


def jit(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """`jax.jit` with `compiler_options()`, and with the lowerings that are best in such a program.

    Where there are none it is `jax.jit` and nothing else. With them XLA leaves out a conversion to half precision and
    straight back, as it does for GPUs; `jax.lax.reduce_precision` rounds everywhere. Called in another program, as in a
    function under `jax.jit`, `jax.checkpoint` or `jax.lax.scan`, it is plain `jax.jit` too: a program is compiled with
    the options of the outermost function.

    Args:
      function: what to compile; without it, a decorator is returned.
      options: as of `jax.jit`. `compiler_options` are added to these, and go before them.
    """
    if function is None:
        return functools.partial(jit, **options)
    given = options.pop("compiler_options", None) or {}
    found = compiler_options()
    plain: Any = jax.jit(function, **options)
    if not (found or given):
        return plain

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with use("onednn") if found else contextlib.nullcontext():
            return function(*args, **kwargs)

    compiled: Any = jax.jit(traced, compiler_options=found | given, **options)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return (plain if _in_a_program() else compiled)(*args, **kwargs)

    def clear_cache() -> None:
        plain.clear_cache()
        compiled.clear_cache()

    methods = {"clear_cache": clear_cache} | {
        name: getattr(compiled, name) for name in ("eval_shape", "lower", "trace")
    }
    vars(called).update(methods)
    return called


def _in_a_program() -> bool:
    """Whether operations are being put down for a program that is compiled later, instead of being computed."""
    if get_opaque_trace_state(convention="nnx") == _OUTSIDE:
        return False
    # A `jax.vmap` or `jax.grad` alone is none. But before JAX 0.12 a gradient is, which takes no options either.
    return jax.__version_info__ < (0, 12) or isinstance(lax.iota(jnp.int32, 1), jax.core.Tracer)


@functools.cache
def _has_onednn() -> bool:
    """Whether XLA's programs for the CPU call oneDNN for a convolution if they are compiled with `_OPTIONS`."""

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    on_cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32, sharding=on_cpu) for shape in ((8, 8, 8, 32), (3, 3, 32, 32)))
    try:
        compiled = jax.jit(conv).lower(x, kernel).compile(compiler_options=_OPTIONS)
    except jax.errors.JaxRuntimeError:  # an option that this XLA does not know
        return False
    return "__onednn$convolution" in (compiled.as_text() or "")
