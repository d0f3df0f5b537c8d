"""Training as pure functions: recipes and what they are made of, state, steps, and whole trainings."""

from cnn_jax.training.averaging import EMA, SWA, Averaging, Lookahead
from cnn_jax.training.data_init import DataInit, Whiten
from cnn_jax.training.evaluation import Evaluation, evaluate
from cnn_jax.training.groups import Group, Grouping
from cnn_jax.training.losses import MAP, BinaryCrossEntropy, Focal, Loss, SoftmaxCrossEntropy, SquaredError
from cnn_jax.training.metrics import Accuracy, CalibrationError, CrossEntropy, Metric, TopK
from cnn_jax.training.normed_muon import NormedMuon
from cnn_jax.training.optimizers import LAMB, LARS, SGD, Adam, AdamW, Lion, Muon, Optimizer, RMSprop
from cnn_jax.training.recipe import Recipe, make_functions
from cnn_jax.training.schedules import Constant, Cosine, Linear, OneCycle, Schedule, Step, WarmupStableDecay
from cnn_jax.training.seen import Seen, see
from cnn_jax.training.selection import Hardest, Selection
from cnn_jax.training.state import TrainState, create_state
from cnn_jax.training.step import make_eval_step, make_train_step
from cnn_jax.training.summary import Summary, difference, summarise
from cnn_jax.training.train import make_measure, make_train, train_arrays, whole_order
from cnn_jax.training.views import Centre, Mirror, Shift, View

__all__ = [
    "EMA",
    "LAMB",
    "LARS",
    "MAP",
    "SGD",
    "SWA",
    "Accuracy",
    "Adam",
    "AdamW",
    "Averaging",
    "BinaryCrossEntropy",
    "CalibrationError",
    "Centre",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "DataInit",
    "Evaluation",
    "Focal",
    "Group",
    "Grouping",
    "Hardest",
    "Linear",
    "Lion",
    "Lookahead",
    "Loss",
    "Metric",
    "Mirror",
    "Muon",
    "NormedMuon",
    "OneCycle",
    "Optimizer",
    "RMSprop",
    "Recipe",
    "Schedule",
    "Seen",
    "Selection",
    "Shift",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "Step",
    "Summary",
    "TopK",
    "TrainState",
    "View",
    "WarmupStableDecay",
    "Whiten",
    "create_state",
    "difference",
    "evaluate",
    "make_eval_step",
    "make_functions",
    "make_measure",
    "make_train",
    "make_train_step",
    "see",
    "summarise",
    "train_arrays",
    "whole_order",
]
