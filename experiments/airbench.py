"""CIFAR-10 in seconds: airbench's recipes (Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU").

The numbers are those of arXiv:2404.00498 and of the programs of its repository, KellerJordan/cifar10-airbench, written
as recipes of parts. On an accelerator a seed is one compiled program, whose time is counted as there: from whitening to
the last test image, compiling and warming up apart.

    python experiments/airbench.py                            airbench94_muon, one seed
    python experiments/airbench.py --recipe airbench94        the paper's; airbench96 is longer, for 96 %
    python experiments/airbench.py --replicas 64              64 seeds, their mean and spread
    python experiments/airbench.py --out runs/a --resume      a run kept in a folder, also on an accelerator
"""

from __future__ import annotations

from cnn_jax import start

if __name__ == "__main__":
    start.begin()

import argparse
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from tyro.conf import arg

from cnn_jax import command, data, models, parts, terminal
from cnn_jax.augment import AlternatingFlip, Crop, Cutout
from cnn_jax.data import TFDS, Source
from cnn_jax.errors import InputError
from cnn_jax.experiment import Experiment, prepare, run_experiment
from cnn_jax.models import CifarNet
from cnn_jax.runs.devices import current_device
from cnn_jax.runs.engine import compiler
from cnn_jax.training import (
    SGD,
    Group,
    Hardest,
    Linear,
    Lookahead,
    Mirror,
    NormedMuon,
    Recipe,
    Shift,
    SoftmaxCrossEntropy,
    Whiten,
    make_measure,
    make_train,
    summarise,
    whole_order,
)
from cnn_jax.training.evaluation import at_input_size

Name = Literal["airbench94-muon", "airbench94", "airbench96"]
# What the recipes have in common. The programs compute in half precision all but the norms.
_recipe = functools.partial(
    Recipe,
    loss=SoftmaxCrossEntropy(label_smoothing=0.2),
    data_init=(Whiten("whiten/kernel", images=5000, eps=5e-4),),
    augment=(AlternatingFlip(), Crop(2, "reflect")),
    test_time=(Shift(), Mirror()),
    precision="bfloat16",
)


def airbench94_muon() -> Recipe:
    """airbench94_muon.py: 8 epochs of batches of 2,000, kernels by Muon, the rest by SGD.

    The program sums the losses of a batch, where `Recipe` takes their mean. A gradient 2,000 times smaller needs a rate
    2,000 times larger for the same SGD, and Muon does not depend on its size. The program's decay of a step, 2e-6 times
    2,000, is the same at any rate; SGD's is the rate times `weight_decay`.
    """
    batch = 2000

    def sgd(rate: float) -> str:
        return parts.text(SGD(rate * batch, weight_decay=2e-6 / rate, momentum=0.85, nesterov=True, decay_all=True))

    return _recipe(
        model=CifarNet(scale=1 / 256, output_std=1.0, whiten_bias=12**-0.5),
        optimizer=NormedMuon(0.24, momentum=0.6, ns_steps=3),
        schedule=Linear(),
        groups=(
            Group("whiten/kernel", frozen=True),
            Group("whiten/bias", optimizer=sgd(0.053), schedule="linear(end_at=0.375)"),  # its first three epochs
            Group("norm", optimizer=sgd(0.053)),
            Group("output", optimizer=sgd(0.67)),
        ),
        epochs=8,
        batch_size=batch,
    )


def airbench94() -> Recipe:
    """legacy/airbench94.py: 9.9 epochs of 48 batches of 1,024, all by SGD.

    The program divides rate and decay by k = 1,024 (1 + 1 / (1 - 0.85)), so that neither depends on the momentum. It
    sums losses, hence 1,024 times its rate, 11.5 / k; its decay of a step at that rate is 1,024 * 0.0153 / k.
    """
    batch, momentum, decay = 1024, 0.85, 0.0153 / 11.5
    rate = batch * 11.5 / (1024 * (1 + 1 / (1 - momentum)))
    return _recipe(
        model=CifarNet(),
        optimizer=SGD(rate, weight_decay=decay, momentum=momentum, nesterov=True, decay_all=True),
        schedule=Linear(warmup=0.23, start=0.2, end=0.07),
        groups=(
            Group("whiten/kernel", frozen=True),
            Group("whiten/bias", until=3 / 9.9),
            Group("norm", rate=64.0, weight_decay=decay / 64),
        ),
        averaging=(Lookahead(sync_period=5, slow_step_size=1 - 0.95**5, power=3.0, statistics=True),),
        epochs=10,
        steps=476,  # the program leaves out what fills no batch of an epoch: 9.9 times 48, rounded up
        batch_size=batch,
    )


def airbench96() -> Recipe:
    """airbench96_faster.py: 45 epochs of 48 batches of 1,024, of each the 512 images that a small proxy finds hardest.

    As airbench94, but that losses are summed over 512 images, and that the bias of `whiten` is trained throughout: that
    program would stop after 3 epochs, but asks whether the epoch is 144. The proxy's is not trained at all.
    """
    batch, keep, momentum, decay = 1024, 512, 0.85, 2 * 0.012 / 9.0
    rate = keep * 9.0 / (1024 * (1 + 1 / (1 - momentum)))
    return _recipe(
        model=CifarNet(features=(128, 384, 512), depth=3),
        selection=(Hardest("cifarnet(features=(32, 64, 64))", keep, every=4, frozen="whiten/bias"),),
        augment=(AlternatingFlip(), Crop(4, "reflect"), Cutout(12, inside=True)),
        optimizer=SGD(rate, weight_decay=decay, momentum=momentum, nesterov=True, decay_all=True),
        schedule=Linear(warmup=0.1, start=0.2),
        groups=(Group("whiten/kernel", frozen=True), Group("norm", rate=64.0, weight_decay=decay / 64)),
        averaging=(Lookahead(sync_period=5, slow_step_size=1 - 0.95**5, power=3.0, statistics=True),),
        epochs=45,
        steps=2160,  # 45 times 48
        batch_size=batch,
    )


RECIPES: dict[Name, Recipe] = {
    "airbench94-muon": airbench94_muon(),
    "airbench94": airbench94(),
    "airbench96": airbench96(),
}


@dataclass(frozen=True, kw_only=True)
class Config(Experiment):
    """A small VGG whose first layer whitens; every field of the recipe chosen is an option."""

    name: Annotated[Name, arg(name="recipe")] = "airbench94-muon"
    """Which of airbench's recipes."""
    recipe: Annotated[Recipe, arg(name="")] = RECIPES["airbench94-muon"]
    data: Source = TFDS("cifar10")
    """The images to learn from."""
    one_program: bool | None = None
    """Compile whitening, all epochs and the last evaluation as one program, time it seed by seed, and keep nothing. By
    default, or with None, where the device is an accelerator, unless a folder is named by `out`."""


def defaults(args: Sequence[str] | None = None) -> Config:
    """The options with the defaults of the recipe that a command line names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", nargs="?")
    name: Any = parser.parse_known_args(args)[0].recipe
    return Config(name=name, recipe=RECIPES[name]) if name in get_args(Name) else Config()


def main(config: Config) -> None:
    prepare(config)
    kept = config.sweep or config.place.out is not None or config.place.dry_run
    plain = kept or current_device().platform == "cpu"
    if config.one_program or (config.one_program is None and not plain):
        race(config)
    else:
        run_experiment(config, config.name)


def race(config: Config) -> np.ndarray:
    """Trains and measures each seed by one call of one program, and prints how that went.

    Returns:
        The test accuracies of the seeds, float64 (seeds,).

    Raises:
        InputError: the options ask for what one program does not do.
    """
    recipe = config.recipe
    if recipe.validation or recipe.patience or recipe.init is not None or config.place.out is not None or config.sweep:
        raise InputError(
            "one_program: expected no validation, patience, init, sweep or out with it; give --one-program False"
        )
    size = models.input_size(recipe.model) or (32, 32)
    train, test = (at_input_size(config.data(split, size), size) for split in ("train", "test"))
    if recipe.pixel_range is not None:
        train = data.rescale(train, *recipe.pixel_range)
    images, tested = ({"image": jnp.asarray(s.images), "label": jnp.asarray(s.labels)} for s in (train, test))
    learn, measure = make_train(recipe, train), make_measure(recipe, train)

    def whole(seed: jax.Array, order: jax.Array, images: Any, tested: Any) -> Any:
        state, metrics = learn(jax.random.key(seed), {}, {**images, "order": order})
        return metrics["loss"], measure(state.eval_variables, tested)

    def arguments(seed: int) -> tuple[Any, ...]:
        return np.int32(seed), whole_order(recipe, len(train), seed), images, tested

    began = time.perf_counter()
    program = compiler(recipe, config.execution)(whole).lower(*arguments(0)).compile()
    compiled = time.perf_counter()
    if current_device().platform != "cpu":  # where a first call is as good as any, and takes its time
        jax.block_until_ready(program(*arguments(config.seed)))
    terminal.say(f"compiled in {compiled - began:.1f} s, warmed up in {time.perf_counter() - compiled:.1f} s")
    accuracies, seconds = [], []
    for seed in config.seeds:
        began = time.perf_counter()  # images are on the device; the order that they come in is made now
        losses, measured = jax.device_get(program(*arguments(seed)))
        seconds.append(time.perf_counter() - began)
        accuracies.append(float(measured["accuracy"]))
        if not np.isfinite(losses).all():
            raise InputError(f"seed {seed}: the loss became NaN or infinite; lower --optimizer.learning-rate")
    rows = [(str(s), f"{a:.2%}", f"{t:.3f}") for s, a, t in zip(config.seeds, accuracies, seconds, strict=True)]
    terminal.show_table(("seed", "test accuracy", "seconds"), rows)
    found = summarise(accuracies)
    interval = f", 95 % interval of the mean {found.low:.2%} to {found.high:.2%}" if len(rows) > 1 else ""
    terminal.say(
        f"test accuracy {found.percent()}{interval}; {np.median(seconds):.3f} s a seed (median), from whitening to the "
        f"last of {len(test):,} test images, on {current_device().device_kind}"
    )
    return np.array(accuracies)


if __name__ == "__main__":
    command.main(main, Config, description=__doc__, default=defaults())
