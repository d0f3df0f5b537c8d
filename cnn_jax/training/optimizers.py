"""Optax's optimisers, with what they have in common: a rate that the schedule scales, decay, clipping."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import optax
from optax import contrib

from cnn_jax.parts import Part, is_concrete, is_non_negative, is_positive, is_share


@dataclass(frozen=True)
class Optimizer(Part, abc.ABC):
    """What turns gradients into updates: the base of all optimisers.

    Attributes:
        kernels_only: whether it refuses biases and the parameters of norms, which need a group.
    """

    kernels_only: ClassVar[bool] = False

    learning_rate: float = 1e-3
    """Peak learning rate; the schedule scales it."""

    @abc.abstractmethod
    def __call__(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        """The transformation of gradients into updates.

        Args:
            schedule: step -> learning rate, whose peak is that of this optimiser.
        """


def _is_off(value: Any) -> bool:
    """Whether a number is 0, as far as is known now; a traced one may be anything."""
    return is_concrete(value) and not value


def decays(params: Any) -> Any:
    """True for the leaves of `params` that weight decay applies to: kernels, not biases or the parameters of norms.

    Those are the leaves with two dimensions or more: every bias, and every scale of a Flax norm, has one.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


@dataclass(frozen=True)
class _Clipping(Optimizer):
    """Optimisers with decay of the kernels, not of biases or the parameters of norms, and with clipping."""

    weight_decay: float = 0.0
    """Decay of the kernels: decoupled in adamw, lamb and lion; added to the gradient (L2) in sgd, adam and rmsprop."""
    clip_norm: float | None = None
    """Largest global norm of the gradient; by default, or with None, gradients are left as they are."""

    def __post_init__(self) -> None:
        self.check("learning_rate", is_positive, "a positive number that float32 holds")
        self.check("weight_decay", is_non_negative, "a number >= 0 that float32 holds")
        self.check("clip_norm", lambda norm: norm is None or is_positive(norm), "a positive number or None")

    def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        """What comes after clipping."""
        raise NotImplementedError

    def __call__(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        clip = [] if self.clip_norm is None else [optax.clip_by_global_norm(self.clip_norm)]
        return optax.chain(*clip, *self._before(), self.rule(schedule))

    def _before(self) -> list[optax.GradientTransformation]:
        return []


@dataclass(frozen=True)
class _L2(_Clipping):
    """Those that have no decay of their own: it is added to the gradient."""

    def _before(self) -> list[optax.GradientTransformation]:
        decay = self.weight_decay
        return [] if _is_off(decay) else [optax.add_decayed_weights(decay, mask=self._mask())]

    def _mask(self) -> Callable[[Any], Any] | None:
        return decays


@dataclass(frozen=True)
class SGD(_L2):
    """Gradient descent, by default with momentum."""

    momentum: float = 0.9
    """Share of the last update that is kept; 0 keeps none."""
    nesterov: bool = False
    """Look ahead, as in Nesterov's momentum (Sutskever et al. 2013)."""
    decay_all: bool = False
    """Let biases and the parameters of norms decay too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("momentum", is_share, "a number from 0 to below 1")

    def _mask(self) -> Callable[[Any], Any] | None:
        return None if self.decay_all else decays

    def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        return optax.sgd(schedule, momentum=None if _is_off(self.momentum) else self.momentum, nesterov=self.nesterov)


def _check_averages(part: Any, fields: tuple[str, ...] = ("b1", "b2")) -> None:
    for field in fields:
        part.check(field, is_share, "a number from 0 to below 1")
    if hasattr(part, "eps"):
        part.check("eps", is_positive, "a positive number")


@dataclass(frozen=True)
class _Averages(_Clipping):
    """Those of Adam's family, which keep averages of gradients and of their squares."""

    b1: float = 0.9
    """Decay of the average of gradients."""
    b2: float = 0.999
    """Decay of the average of their squares."""
    eps: float = 1e-8
    """Added to the root of the average of squares."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_averages(self)


@dataclass(frozen=True)
class Adam(_L2, _Averages):
    """Kingma and Ba 2015."""

    def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        return optax.adam(schedule, b1=self.b1, b2=self.b2, eps=self.eps)


@dataclass(frozen=True)
class AdamW(_Averages):
    """Adam with decoupled decay (Loshchilov and Hutter 2019)."""

    def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        return optax.adamw(schedule, b1=self.b1, b2=self.b2, eps=self.eps, weight_decay=self.weight_decay, mask=decays)


@dataclass(frozen=True)
class LAMB(_Averages):
    """AdamW with each layer's update scaled to the norm of its parameters (You et al. 2020)."""

    eps: float = 1e-6
    """Added to the root of the average of squares."""

    def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        return optax.lamb(schedule, b1=self.b1, b2=self.b2, eps=self.eps, weight_decay=self.weight_decay, mask=decays)


@dataclass(frozen=True)
class LARS(_Clipping):
    """SGD with each layer's rate scaled by the norms of its parameters and gradient (You, Gitman and Ginsburg 2017)."""

    momentum: float = 0.9
    """Share of the last update that is kept."""
    nesterov: bool = False
    """Look ahead, as in Nesterov's momentum."""
    trust_coefficient: float = 0.001
    """The paper's eta: how far a layer may move in a step, as a share of its norm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("momentum", is_share, "a number from 0 to below 1")
        self.check("trust_coefficient", is_positive, "a positive number")

    def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        return optax.lars(
            schedule, weight_decay=self.weight_decay, weight_decay_mask=decays, trust_ratio_mask=decays,
            trust_coefficient=self.trust_coefficient, momentum=self.momentum, nesterov=self.nesterov,
        )  # fmt: skip


@dataclass(frozen=True)
class Lion(_Clipping):
    """Updates that are signs (Chen et al. 2023)."""

    b1: float = 0.9
    """How the update mixes the average and the gradient."""
    b2: float = 0.99
    """Decay of the average of gradients."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_averages(self)

    def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        return optax.lion(schedule, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay, mask=decays)


@dataclass(frozen=True)
class RMSprop(_L2):
    """Gradients over the root of an average of their squares (Tieleman and Hinton 2012), by default with momentum."""

    momentum: float = 0.9
    """Share of the last update that is kept; 0 keeps none."""
    decay: float = 0.9
    """Decay of the average of squares."""
    eps: float = 1e-8
    """Added to the average of squares, in the root."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_averages(self, ("momentum", "decay"))

    def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        momentum = None if _is_off(self.momentum) else self.momentum
        return optax.rmsprop(schedule, decay=self.decay, eps=self.eps, momentum=momentum)


@dataclass(frozen=True)
class Muon(_Clipping):
    """Updates of kernels whose singular values are all about 1; AdamW for biases and norms (Jordan et al. 2024).

    A kernel (*window, I, O) of a convolution is taken as a matrix (O, I times window).
    """

    beta: float = 0.95
    """Share of the average of gradients that is kept."""
    nesterov: bool = True
    """Look ahead, as in Nesterov's momentum."""
    ns_steps: int = 5
    """Steps of the Newton-Schulz iteration, which brings the singular values to about 1."""
    adam_learning_rate: float | None = None
    """Peak learning rate of AdamW; by default, or with None, `learning_rate`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("beta", is_share, "a number from 0 to below 1")
        self.check("ns_steps", lambda steps: steps >= 1, "a whole number >= 1")
        self.check("adam_learning_rate", lambda rate: rate is None or is_positive(rate), "a positive number or None")

    def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
        other = self.adam_learning_rate
        adam = None if other is None else lambda count: schedule(count) * (other / self.learning_rate)
        return contrib.muon(
            schedule, beta=self.beta, nesterov=self.nesterov, ns_steps=self.ns_steps, weight_decay=self.weight_decay,
            adam_learning_rate=adam, muon_weight_dimension_numbers=_as_matrices,
        )  # fmt: skip


def _as_matrices(params: Any) -> Any:
    """How Muon views each parameter as a matrix: inputs and window against outputs; None for those that are none."""

    def axes(leaf: Any) -> contrib.MuonDimensionNumbers | None:
        last = leaf.ndim - 1
        return contrib.MuonDimensionNumbers(tuple(range(last)), last) if last > 0 else None

    return jax.tree.map(axes, params)
