"""Optimisers and learning-rate schedules by name, all of them Optax's."""

from __future__ import annotations

from typing import Any

import jax
import optax

from cnn_jax.training.config import OptimizerConfig, ScheduleConfig


def make_schedule(config: ScheduleConfig, peak: float, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step.

    Args:
        config: which schedule.
        peak: the largest learning rate.
        steps: length of the run; the schedule ends there.
    """
    warmup = round(config.warmup * steps)
    if config.name == "constant":
        return optax.constant_schedule(peak)
    if config.name == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, max(steps, warmup + 1))
    if config.name == "onecycle":
        # Optax divides by the lengths of both phases, so each is given a step at least.
        share = min(max(config.warmup, 1 / max(steps, 2)), 1 - 1 / max(steps, 2))
        return optax.cosine_onecycle_schedule(max(steps, 2), peak, pct_start=share)
    # Two shares of a very short run can fall on one step: their factors are then multiplied.
    boundaries: dict[int, float] = {}
    for share in config.decay_at:
        step = round(share * steps)
        boundaries[step] = boundaries.get(step, 1.0) * config.decay_factor
    return optax.piecewise_constant_schedule(peak, boundaries)


def decays(params: Any) -> Any:
    """True for the leaves of `params` that weight decay applies to: kernels, not biases or the parameters of norms.

    Those are the leaves with two dimensions or more: every bias, and every scale of a Flax norm, has one.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, weight_decay: jax.Array | float | None = None
) -> optax.GradientTransformation:
    """The optimiser of a configuration: clipping, then the rule, then the scheduled learning rate.

    `weight_decay` stands in for the configuration's where it is given, and may be traced.
    """
    decay = config.weight_decay if weight_decay is None else weight_decay
    rules = {
        "sgd": lambda: optax.sgd(schedule, momentum=config.momentum or None),
        "adam": lambda: optax.adam(schedule),
        "rmsprop": lambda: optax.rmsprop(schedule, momentum=config.momentum or None),
        "adamw": lambda: optax.adamw(schedule, weight_decay=decay, mask=decays),
        "lamb": lambda: optax.lamb(schedule, weight_decay=decay, mask=decays),
        "lion": lambda: optax.lion(schedule, weight_decay=decay, mask=decays),
    }
    parts = []
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if (isinstance(decay, jax.Array) or decay) and config.name in ("sgd", "adam", "rmsprop"):
        parts.append(optax.add_decayed_weights(decay, mask=decays))
    return optax.chain(*parts, rules[config.name]())
