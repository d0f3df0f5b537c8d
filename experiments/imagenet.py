"""ImageNet: published recipes for ResNet-50 and ResNet-18, as recipes of parts, with what they reached beside them.

Meant for accelerators. None of them has been run here on ImageNet; `--published` prints what others published. The data
are a folder, by default `imagenet`, with `train/CLASS/...` and `val/CLASS/...` in it, and are streamed as they do not
fit into memory.

    python experiments/imagenet.py --published                            the table; trains nothing
    python experiments/imagenet.py --recipe resnet18-ffcv --data.path /data/imagenet
    python experiments/imagenet.py --recipe resnet50-a3 --mesh data=8 --accumulate 4
    python experiments/imagenet.py --data 'folder("photos", square=292)' --batch-size 64    pictures of your own

What is not the papers': each picture's shorter side is brought to 292 pixels and the square in the middle is all that
crops are taken from (`square`), where they crop the whole picture; 292 is 256 / 0.875, so that no recipe enlarges the
pictures that it is tested on. Images are resized bilinearly. They are normalised by the training images' own mean and
deviation. A batch goes on from one pass over the images to the next, and none is dropped. Convolutions begin normal but
cut off at two deviations, with variance 2 / inputs, and the last layer with variance 1 / inputs unless a recipe says
otherwise. ResNet-50 has the stride of a block in its 3x3 convolution, as all these programs do, but not He et al. What
else a recipe leaves out is said there. Rates belong to batch sizes: with another `--batch-size` scale them yourself.
"""

from __future__ import annotations

from cnn_jax import start

if __name__ == "__main__":
    start.begin()

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args

from tyro.conf import arg

from cnn_jax import command, parts, terminal
from cnn_jax.augment import (
    Flip,
    GrowingCrop,
    Lighting,
    MixupOrCutmix,
    RandAugment,
    RandomResizedCrop,
    ScaleCrop,
)
from cnn_jax.data import Folder, Source
from cnn_jax.experiment import Experiment, run_experiment
from cnn_jax.models import ResNet18ImageNet, ResNet50
from cnn_jax.training import (
    LAMB,
    SGD,
    Accuracy,
    Adam,
    BinaryCrossEntropy,
    Centre,
    Cosine,
    Group,
    Linear,
    Mirror,
    Recipe,
    SoftmaxCrossEntropy,
    Step,
    TopK,
)

Name = Literal["resnet50", "resnet50-large-batch", "resnet50-a3", "resnet50-ffcv", "resnet18-ffcv"]
_CLASSES = 1000
_recipe = functools.partial(Recipe, metrics=(Accuracy(), TopK(5)))


def resnet50() -> Recipe:
    """He, Zhang, Ren and Sun 2016, section 3.4: 600,000 steps at batch 256, the shorter side from 256 to 480 pixels.

    The paper divides the rate whenever the error falls no more; here that is every 30 epochs, as in fb.resnet.torch.
    Norms are over the 32 images of a GPU, as the authors' repository says. Colours are centred by channel, not by
    pixel. Nothing is said to be without decay. Tested on one crop, for which the repository has a figure; the paper
    tests on ten.
    """
    return _recipe(
        model=ResNet50(),
        optimizer=SGD(0.1, weight_decay=1e-4, momentum=0.9, decay_all=True),
        schedule=Step(at=(0.25, 0.5, 0.75), factor=0.1),
        augment=(ScaleCrop(224, 256, 480), Lighting(0.1), Flip()),
        test_time=(Centre(224, 224 / 256),),
        epochs=120,
        steps=600_000,
        batch_size=256,
        norm_batch=32,
    )


def large_batch() -> Recipe:
    """Goyal et al. 2017, section 5.1: 90 epochs of batches of 8,192, the rate 0.1 for each 256 images of a batch.

    It rises to that in 5 epochs from the rate for 256 images, and is divided by ten after 30, 60 and 80. Norms are over
    32 images and do not decay; the last norm of a block begins at zero, the last layer with a deviation of 0.01. The
    paper's figure is the median of the last five epochs.
    """
    batch, workers = 8192, 256
    return _recipe(
        model=ResNet50(zero_init=True, output_std=0.01),
        optimizer=SGD(0.1 * batch / 256, weight_decay=1e-4, momentum=0.9, nesterov=True, decay_all=True),
        groups=(Group("norm", weight_decay=0.0),),
        schedule=Step(at=(30 / 90, 60 / 90, 80 / 90), factor=0.1, warmup=5 / 90, start=256 / batch, ramp=True),
        augment=(RandomResizedCrop(size=224), Flip()),
        test_time=(Centre(224, 224 / 256),),
        epochs=90,
        batch_size=batch,
        norm_batch=batch // workers,
    )


def a3() -> Recipe:
    """Wightman, Touvron and Jegou 2021, "ResNet strikes back", Table 2, A3: 100 epochs of images of 160 pixels.

    Losses here are summed over the classes, timm's averaged; a gradient 1,000 times larger needs an epsilon and a norm
    to clip at that are as many times larger for the same steps. timm's LAMB does not scale what does not decay, which
    is then Adam; it clips all together, where here both groups clip by their own norms. A mixed image is of each class
    that has more than a fifth of it. timm's RandAugment counts strengths to 10, here to 30, and carries each operation
    out half of the time; it also inverts, adds to dark pixels, posterises to fewer bits and fills with grey. It mixes a
    batch one way and interpolates bicubically, and its rate falls by epochs, to 1e-6. Norms here are over all images.
    """
    rate, mean = 8e-3, 1 / _CLASSES
    return _recipe(
        model=ResNet50(zero_init=True),
        loss=BinaryCrossEntropy(threshold=0.2),
        optimizer=LAMB(rate, weight_decay=0.02, clip_norm=1 / mean, eps=1e-6 / mean),
        groups=(Group("norm|bias", optimizer=parts.text(Adam(rate, clip_norm=1 / mean, eps=1e-6 / mean))),),
        schedule=Cosine(warmup=5 / 100),
        augment=(
            RandomResizedCrop(size=160),
            Flip(),
            RandAugment(2, magnitude=3 * 6.0, spread=3 * 0.5, chance=0.5),
            MixupOrCutmix(mixup=0.1, cutmix=1.0, switch=0.5),
        ),
        test_time=(Centre(224, 0.95),),
        precision="bfloat16",
        epochs=100,
        batch_size=2048,
    )


# FFCV's train_imagenet.py: 16 epochs, up to the peak in 2 of them and straight down to 0; 160 pixels for 12 epochs and
# then 192; norms do not decay; tested on 256 pixels and their mirror image. It computes in float16.
_ffcv = functools.partial(
    _recipe,
    loss=SoftmaxCrossEntropy(label_smoothing=0.1),
    groups=(Group("norm", weight_decay=0.0),),
    schedule=Linear(warmup=2 / 16, start=1e-4),
    augment=(GrowingCrop(sizes=(160, 192), at=(12 / 16,)), Flip()),
    test_time=(Centre(256, 224 / 256), Mirror()),
    precision="bfloat16",
    epochs=16,
)


def resnet50_ffcv() -> Recipe:
    """rn50_16_epochs.yaml of libffcv/ffcv-imagenet: 512 images on each of 8 GPUs, which norms are over."""
    optimizer = SGD(1.7, weight_decay=1e-4, momentum=0.9, decay_all=True)
    return _ffcv(model=ResNet50(blur=True), optimizer=optimizer, batch_size=8 * 512, norm_batch=512)


def resnet18_ffcv() -> Recipe:
    """rn18_16_epochs.yaml of libffcv/ffcv-imagenet, on one GPU."""
    optimizer = SGD(0.5, weight_decay=5e-5, momentum=0.9, decay_all=True)
    return _ffcv(model=ResNet18ImageNet(blur=True), optimizer=optimizer, batch_size=1024)


class Known(NamedTuple):
    """A recipe, the accuracy in percent that was published for it, and where and how that was measured."""

    recipe: Recipe
    published: float
    source: str


RECIPES: dict[Name, Known] = {
    "resnet50": Known(resnet50(), 75.3, "He et al. 2016, one crop: KaimingHe/deep-residual-networks"),
    "resnet50-large-batch": Known(large_batch(), 76.26, "Goyal et al. 2017, Table 1, mean of five"),
    "resnet50-a3": Known(a3(), 78.1, "Wightman et al. 2021, Table 1"),
    "resnet50-ffcv": Known(resnet50_ffcv(), 73.8, "libffcv/ffcv-imagenet, 14.9 minutes on 8 A100"),
    "resnet18-ffcv": Known(resnet18_ffcv(), 66.9, "libffcv/ffcv-imagenet, 35 minutes on one A100"),
}


@dataclass(frozen=True, kw_only=True)
class Config(Experiment):
    """Published recipes for ImageNet; every field of the recipe chosen is an option."""

    name: Annotated[Name, arg(name="recipe")] = "resnet50"
    """Which of the recipes."""
    recipe: Annotated[Recipe, arg(name="")] = RECIPES["resnet50"].recipe
    data: Source = Folder("imagenet", square=292)
    """The images to learn from."""
    published: bool = False
    """Print what was published for each recipe, and train nothing."""


def defaults(args: Sequence[str] | None = None) -> Config:
    """The options with the defaults of the recipe that a command line names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", nargs="?")
    name: Any = parser.parse_known_args(args)[0].recipe
    return Config(name=name, recipe=RECIPES[name].recipe) if name in get_args(Name) else Config()


def main(config: Config) -> None:
    if config.published:
        rows = [
            (name, str(known.recipe.epochs), f"{known.published:.4g} %", "not run here", known.source)
            for name, known in RECIPES.items()
        ]
        terminal.show_table(("recipe", "epochs", "published", "here", "by"), rows, left=(0, 3, 4))
        return
    run_experiment(config, config.name)
    known = RECIPES[config.name]
    terminal.say(f"published for {config.name} on ImageNet: {known.published:.4g} % ({known.source})")


if __name__ == "__main__":
    command.main(main, Config, description=__doc__, default=defaults())
