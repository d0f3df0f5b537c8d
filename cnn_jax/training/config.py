"""What a run is made of, as frozen dataclasses: the whole configuration is a tree of plain values."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cnn_jax.errors import InputError

_LEAST, _GREATEST = 2.0**-126, 2.0**128 - 2.0**104  # normal numbers of float32


def check(condition: bool, option: str, expected: str, value: object) -> None:
    """Raises `InputError` naming the option, what was expected and what arrived, unless `condition` holds."""
    if not condition:
        raise InputError(f"{option}: expected {expected}, got {value!r}")


def _check_held(option: str, *values: float | None) -> None:
    """InputError where a number would become infinite or 0 in float32, which is what runs compute in."""
    for value in values:
        held = not value or _LEAST <= abs(value) <= _GREATEST
        check(held, option, f"0 or a number from {_LEAST:.1e} to {_GREATEST:.1e} in size, as float32 holds them", value)


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _is_non_negative(value: float) -> bool:
    return math.isfinite(value) and value >= 0


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images to learn from."""

    name: str = "digits"
    """Data set: digits (built in, needs no download), mnist, fashion_mnist, kmnist, cifar10, cifar100, or any
    image classification data set of TensorFlow Datasets, as name, name/config or name:version."""
    dir: Path | None = None
    """Folder of prepared data sets; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    validation: float = 0.0
    """Part of the training split held out to choose the best checkpoint: a fraction below 1, or a count of images."""

    pixel_range: tuple[float, float] | None = None
    """Values that black and white pixels get, e.g. -0.1 1.175 as in LeCun et al. 1998; by default the training images
    get mean 0 and variance 1 in each channel."""

    def __post_init__(self) -> None:
        check(bool(self.name.strip()), "data.name", "the name of a data set", self.name)
        valid = _is_non_negative(self.validation) and (self.validation < 1 or float(self.validation).is_integer())
        check(valid, "data.validation", "a fraction from 0 to 1 or a whole number of images", self.validation)
        if self.pixel_range is not None:
            black, white = self.pixel_range
            valid = math.isfinite(black) and math.isfinite(white) and black < white
            check(valid, "data.pixel_range", "two finite numbers, black below white", self.pixel_range)
            _check_held("data.pixel_range", black, white, (white - black) * (white - black))


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser, from Optax. Biases and the parameters of norms are never decayed."""

    name: Literal["sgd", "adam", "adamw", "lamb", "lion", "rmsprop"] = "adamw"
    """Rule that turns gradients into updates."""
    learning_rate: float = 3e-3
    """Peak learning rate; the schedule scales it."""
    momentum: float = 0.9
    """Momentum of sgd and rmsprop; the others keep their papers' averages."""
    weight_decay: float = 0.0
    """Decay of the kernels: decoupled in adamw, lamb and lion; added to the gradient (L2) in sgd, adam and rmsprop."""
    clip_norm: float | None = None
    """Largest global norm of the gradient; by default, or with None, gradients are left as they are."""

    def __post_init__(self) -> None:
        check(_is_positive(self.learning_rate), "optimizer.learning_rate", "a positive number", self.learning_rate)
        check(0 <= self.momentum < 1, "optimizer.momentum", "a number from 0 to below 1", self.momentum)
        check(_is_non_negative(self.weight_decay), "optimizer.weight_decay", "a number >= 0", self.weight_decay)
        if self.clip_norm is not None:
            check(_is_positive(self.clip_norm), "optimizer.clip_norm", "a positive number or None", self.clip_norm)
        for name in ("learning_rate", "weight_decay", "clip_norm"):
            _check_held(f"optimizer.{name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves over the run, from Optax. Lengths are shares of all steps."""

    name: Literal["constant", "cosine", "onecycle", "step"] = "onecycle"
    """constant; cosine: linear warm-up, then a half cosine to zero; onecycle: cosine up from 1/25 of the peak and down
    to nearly zero (Smith and Topin 2018); step: multiplied by `decay_factor` at each of `decay_at`."""
    warmup: float = 0.3
    """Share of the steps in which cosine and onecycle rise to the peak."""
    decay_at: tuple[float, ...] = (0.5, 0.75)
    """Shares of the steps at which step decays."""
    decay_factor: float = 0.1
    """Factor of each decay of step."""

    def __post_init__(self) -> None:
        check(0 <= self.warmup < 1, "schedule.warmup", "a share from 0 to below 1", self.warmup)
        ascending = all(0 < a < 1 for a in self.decay_at) and list(self.decay_at) == sorted(set(self.decay_at))
        check(ascending, "schedule.decay_at", "ascending shares between 0 and 1", self.decay_at)
        check(0 < self.decay_factor <= 1, "schedule.decay_factor", "a factor above 0, at most 1", self.decay_factor)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    name: Literal["softmax_cross_entropy", "squared_error", "map"] = "softmax_cross_entropy"
    """Cross-entropy of the softmax of the scores; squared error of the scores against one-hot targets; or the maximum
    a posteriori criterion for penalties, the negative scores (LeCun et al. 1998, equation 9)."""
    label_smoothing: float = 0.0
    """Share of the cross-entropy's target spread evenly over all classes (Szegedy et al. 2016, section 7)."""
    rubbish_penalty: float = 10.0
    """The constant j of map, the penalty of a class for everything that is no digit: wrong classes whose penalty is
    well above it are not pushed further up."""

    def __post_init__(self) -> None:
        valid = 0 <= self.label_smoothing < 1
        check(valid, "loss.label_smoothing", "a share from 0 to below 1", self.label_smoothing)
        if self.name != "softmax_cross_entropy":
            expected = f"0 with {self.name} (smoothing belongs to softmax_cross_entropy)"
            check(self.label_smoothing == 0, "loss.label_smoothing", expected, self.label_smoothing)
        check(_is_positive(self.rubbish_penalty), "loss.rubbish_penalty", "a positive number", self.rubbish_penalty)
        _check_held("loss.rubbish_penalty", self.rubbish_penalty)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training images are distorted, anew in every step, on the device. Each is a largest amount, 0 for none."""

    name: Literal["none", "affine"] = "none"
    """none; or affine, the planar distortions of LeCun et al. 1998, section III.A."""
    translation: float = 2.0
    """Shift in either direction, in pixels."""
    scale: float = 0.1
    """Change of size: 0.1 grows or shrinks by up to 10 %."""
    squeeze: float = 0.1
    """Change of the aspect: taller and narrower, or the reverse."""
    shear: float = 0.2
    """Slant: columns moved per row."""

    def __post_init__(self) -> None:
        for name in ("translation", "scale", "squeeze", "shear"):
            value = getattr(self, name)
            check(_is_non_negative(value), f"augment.{name}", "a number >= 0", value)
            _check_held(f"augment.{name}", value)


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How often the state of a run is saved. It is always saved at the end and when the run is interrupted."""

    every_steps: int | None = None
    """Save after each so many steps; by default, or with None, the clock alone decides."""
    every_seconds: float | None = 20.0
    """Save when so many seconds have gone by since the last save; with None the steps alone decide."""
    keep: int = 3
    """How many of the newest are kept. With a validation split the best is kept besides."""

    def __post_init__(self) -> None:
        if self.every_steps is not None:
            check(self.every_steps >= 1, "checkpoint.every_steps", "a whole number >= 1 or None", self.every_steps)
        if self.every_seconds is not None:
            valid = _is_non_negative(self.every_seconds)
            check(valid, "checkpoint.every_seconds", "a number >= 0 or None", self.every_seconds)
        check(self.keep >= 1, "checkpoint.keep", "a whole number >= 1", self.keep)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that, with the model and the data, decides the result of training."""

    seed: int = 0
    """Seed of the parameters, the order of the images and anything else random."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 128
    """Images a step."""
    steps_per_call: int | None = None
    """Steps taken by one call of a compiled program, at most those of an epoch and of a second: between calls progress
    is shown, checkpoints are written and signals heeded. It changes the speed; 1 may round otherwise than more. By
    default, or with None, it is the most, but on CPU 1 where the model has convolutions of XLA's own, which are slow in
    loops."""
    onednn: bool = False
    """On a CPU compile the train steps with oneDNN's convolutions and products, if XLA has them. LeNet-5 gains 0 to
    10 %. Such a program rounds otherwise, and is compiled anew at every start: XLA cannot write it to the cache."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    def __post_init__(self) -> None:
        check(0 <= self.seed < 2**31, "seed", "a whole number from 0 to 2147483647", self.seed)
        check(self.epochs >= 1, "epochs", "a whole number >= 1", self.epochs)
        check(self.batch_size >= 1, "batch_size", "a whole number >= 1", self.batch_size)
        if self.steps_per_call is not None:
            check(self.steps_per_call >= 1, "steps_per_call", "a whole number >= 1 or None", self.steps_per_call)


def check_replicas(seed: int, replicas: int) -> None:
    """Raises `InputError` unless there are as many seeds from `seed` on."""
    check(1 <= replicas <= 2**31 - seed, "replicas", f"a whole number from 1 to {2**31 - seed}", replicas)


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig(TrainConfig):
    """A `TrainConfig` with the places it reads from and writes to; experiment scripts add their model."""

    data: DataConfig = DataConfig()
    replicas: int = 1
    """How many seeds to train, from `seed` on, together as one program; the table then has mean, standard deviation
    and confidence interval."""
    out: Path | None = None
    """Folder of the run; by default a new one, runs/EXPERIMENT-DATA-TIME."""
    resume: bool = False
    """Go on with the run in the folder given by `out` where it stopped; start it if there is none."""
    overwrite: bool = False
    """Replace the run in the folder given by `out`."""
    device: str | None = None
    """Device to run on, as JAX names it: cpu, gpu, tpu, or one of several, gpu:1. By default JAX's first. Replicas are
    spread over all devices, or all of the platform named; on cpu that is over its cores."""
    report: bool = True
    """Write report.html into the folder of the run when it has ended, as `cnn-jax report` does; it takes seconds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_replicas(self.seed, self.replicas)
        both = self.resume and self.overwrite
        if both:
            raise InputError("resume, overwrite: expected at most one of the two, got both")
        if self.resume and self.out is None:
            raise InputError("resume: expected the folder of the run in `out`, got none")


def to_dict(config: Any) -> dict[str, Any]:
    """A tree of dataclasses as plain JSON values: dicts, lists, strings, numbers, None."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))
