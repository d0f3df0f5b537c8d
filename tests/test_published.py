"""Tables of paper against here: the recipes' constants, and what trains them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from cnn_jax import data, models, published
from cnn_jax.augment import Crop, Flip
from cnn_jax.data import Arrays
from cnn_jax.errors import InputError
from cnn_jax.models import MLP
from cnn_jax.runs import CheckpointConfig, Execution, fit
from cnn_jax.runs.display import Display
from cnn_jax.training import SGD, Recipe, SoftmaxCrossEntropy
from tests.test_command import script
from tests.tiny import assert_same_bits, make_folder, records, steps_kept

pytestmark = pytest.mark.usefixtures("shared_engines")
CIFAR, LECUN = script("cifar"), script("lecun1998")

# He et al. 2016, section 4.2 and Table 6; Zagoruyko and Komodakis 2016, section 3 and Table 5, and their program;
# DeVries and Taylor 2017, Table 1, and theirs. The rates are those after so many steps, the errors in percent.
HE = (
    SGD(0.1, weight_decay=1e-4, momentum=0.9, decay_all=True),
    (Crop(4), Flip()),
    {0: 0.1, 33_000: 0.01, 49_000: 1e-3},
)
RATES = {59: 0.1, 61: 0.02, 119: 0.02, 121: 0.004, 159: 0.004, 161: 8e-4, 199: 8e-4}
NESTEROV = SGD(0.1, weight_decay=5e-4, momentum=0.9, nesterov=True, decay_all=True)
WIDE = (NESTEROV, (Crop(4, mode="reflect"), Flip()), {epoch * 50_000 // 128: rate for epoch, rate in RATES.items()})
PAPERS = {
    "resnet20": (HE, 8.75, None),
    "resnet32": (HE, 7.51, None),
    "resnet44": (HE, 7.17, None),
    "resnet56": (HE, 6.97, None),
    "resnet110": ((*HE[:2], {0: 0.01, 399: 0.01, 400: 0.1, 33_000: 0.01, 49_000: 1e-3}), 6.43, None),
    "resnet18": ((NESTEROV, (Crop(4), Flip()), WIDE[2]), 4.72, 22.46),
    "wrn16x8": (WIDE, 4.27, 20.43),
    "wrn28x10": (WIDE, 4.00, 19.25),
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_for_cifar_is_the_papers(name):
    row, ((optimizer, augment, rates), *errors) = CIFAR.ROWS[name], PAPERS[name]
    recipe = row.recipe
    assert [row.paper.get("cifar10"), row.paper.get("cifar100")] == errors
    assert type(recipe.model) is models.MODELS[name]
    assert (recipe.optimizer, recipe.augment, recipe.loss) == (optimizer, augment, SoftmaxCrossEntropy())
    assert (recipe.batch_size, recipe.validation, recipe.averaging, recipe.groups) == (128, 0, (), ())
    steps = recipe.count_steps(50_000)
    assert steps == (64_000 if optimizer is HE[0] else 200 * 50_000 / 128)
    rate = recipe.schedule(recipe.optimizer.learning_rate, steps)
    assert {step: float(rate(step)) for step in rates} == pytest.approx(rates)


def test_every_row_is_known_by_its_name():
    for experiment in (CIFAR, LECUN):
        config = experiment.Config()
        assert set(config.rows) == set(experiment.Network.__args__) >= set(config.networks)
        assert config.rows is experiment.ROWS
    assert [row.paper for row in LECUN.ROWS.values()] == [{"mnist": error} for error in (1.7, 1.1, 0.95, 0.8)]


# One of each family, as narrow as its fields allow.
FAMILIES = {
    "resnet110": models.ResNet110(stage_sizes=(1, 1), features=8),
    "wrn16x8": models.WRN16x8(depth=10, width=1),
}


@pytest.fixture(scope="module")
def sets():
    """64 images whose classes differ in colour, with much noise, and 40 to test on."""
    draw = np.random.default_rng(0)
    labels = (np.arange(104) % 4).astype(np.int32)
    colours = draw.integers(100, 150, (4, 1, 1, 3))
    images = (colours[labels] + draw.integers(-90, 90, (104, 32, 32, 3))).astype(np.uint8)
    splits = {"train": (images[:64], labels[:64]), "test": (images[64:], labels[64:])}
    return data.make_datasets("colours", tuple("abcd"), splits)


class Killed(BaseException):
    """Stands for the end of the process: nobody catches it to save anything."""


class KillAt(Display):
    """Ends a run at the first report at or after a step."""

    def __init__(self, step):
        super().__init__(silent=True)
        self.step = step

    def update(self, step, *values):
        if step >= self.step:
            raise Killed


@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_learns_and_killed_and_resumed_ends_in_the_same_bits(name, sets, tmp_path):
    recipe = dataclasses.replace(CIFAR.ROWS[name].recipe, model=FAMILIES[name], batch_size=8, epochs=3)
    execution = Execution(checkpoint=CheckpointConfig(every_steps=6, every_seconds=None), steps_per_call=1)

    def run(path, resume=False, display=None):
        with contextlib.closing(make_folder(path, resume=resume)) as folder:
            return fit(recipe, sets["train"], execution=execution, folder=folder, display=display)

    expected = run(tmp_path / "whole")
    assert int(expected.state.step) == 24
    losses = [record["loss"] for record in records(tmp_path / "whole") if record["split"] == "train"]
    assert losses[-1] < losses[0]
    with pytest.raises(Killed):
        run(tmp_path / "parts", display=KillAt(13))
    assert 0 < max(steps_kept(tmp_path / "parts")) < 24
    result = run(tmp_path / "parts", resume=True)
    assert_same_bits(result.state, expected.state)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")


# The table itself.
@dataclass(frozen=True, kw_only=True)
class Small(published.Table):
    """Two rows of which one is published."""

    rows: ClassVar[Mapping[str, published.Row]] = {
        "some": published.Row(
            title="Some",
            paper={"set": 12.5, "mnist": 1.0},
            recipe=Recipe(model=MLP(features=(4,)), epochs=2, batch_size=32),
        ),
        "other": published.Row(
            title="Other", paper={"mnist": 1.0}, recipe=Recipe(model=MLP(features=(2,)), epochs=9, batch_size=32)
        ),
    }


def test_a_table_is_of_the_runs_it_leaves(sets, tmp_path, capsys):
    arrays = {f"{split}_{name}": getattr(each, name) for split, each in sets.items() for name in ("images", "labels")}
    np.savez(tmp_path / "set.npz", **arrays)
    source = Arrays(str(tmp_path / "set.npz"))
    table = Small(networks=("some", "other", "some"), epochs=1, replicas=1, data=source, out=tmp_path / "table")
    published.measure(table, "small")
    header, rule, *rows = (tmp_path / "table" / "table.md").read_text().splitlines()
    assert header.split(" | ")[1:3] == ["paper", "here"]
    assert rule.count("---:") == header.count("|") - 2
    for line, name, paper in zip(rows, ("some", "other"), ("12.50 %", "-"), strict=True):
        title, written, error, _, _, seeds, epochs, _ = line.strip("| ").split(" | ")
        assert (title.lower(), written, seeds, epochs) == (name, paper, "1", "1")
        [*_, found] = (record for record in records(tmp_path / "table" / name) if record["split"] == "test")
        assert error == f"{100 * (1 - found['accuracy']):.2f} %"
        assert (tmp_path / "table" / name / "report.html").is_file()
    assert "the paper's as published" in capsys.readouterr().out
    with pytest.raises(InputError, match="some"):  # refused before anything is trained
        published.measure(table, "small")


def test_the_cells_are_of_all_seeds():
    row, errors = Small.rows["some"], np.array([7.25, 6.25, 7.5])
    options = published.experiment(Small(networks=("some",), data=Arrays("a/set.npz")), row, Path("unused"))
    assert options.recipe == row.recipe
    found = published.cells(row, options, errors, 61.0)
    reach = 4.302653 * errors.std(ddof=1) / 3**0.5  # Student's t of two degrees of freedom
    interval = f"{7 - reach:.2f} to {7 + reach:.2f} %"
    assert found == ("Some", "12.50 %", "7.00 ± 0.66 %", interval, "6.25 to 7.50 %", "3", "2", "1:01")
    alone = published.cells(row, options, errors[:1], 61.0)
    assert alone[2:6] == ("7.25 %", "-", "7.25 to 7.25 %", "1")
