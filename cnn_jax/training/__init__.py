"""Training: state, losses, optimisers, pure steps, checkpoints, and the loop around them."""

from cnn_jax.training.config import (
    AugmentConfig,
    CheckpointConfig,
    DataConfig,
    ExperimentConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from cnn_jax.training.devices import split_cpu
from cnn_jax.training.evaluation import Evaluation, evaluate
from cnn_jax.training.loop import TrainingDivergedError
from cnn_jax.training.losses import make_loss
from cnn_jax.training.mapping import map_replicas, replica_mesh
from cnn_jax.training.memory import keep_memory
from cnn_jax.training.optimizers import make_optimizer, make_schedule
from cnn_jax.training.pure import make_train, train_arrays
from cnn_jax.training.recipe import Hyperparameters
from cnn_jax.training.replicas import ReplicasResult, fit_replicas
from cnn_jax.training.run import Run, load_run
from cnn_jax.training.single import FitResult, fit
from cnn_jax.training.state import TrainState, create_state
from cnn_jax.training.step import make_augment, make_eval_step, make_train_step
from cnn_jax.training.summary import Summary, summarise

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "DataConfig",
    "Evaluation",
    "ExperimentConfig",
    "FitResult",
    "Hyperparameters",
    "LossConfig",
    "OptimizerConfig",
    "ReplicasResult",
    "Run",
    "ScheduleConfig",
    "Summary",
    "TrainConfig",
    "TrainState",
    "TrainingDivergedError",
    "create_state",
    "evaluate",
    "fit",
    "fit_replicas",
    "keep_memory",
    "load_run",
    "make_augment",
    "make_eval_step",
    "make_loss",
    "make_optimizer",
    "make_schedule",
    "make_train",
    "make_train_step",
    "map_replicas",
    "replica_mesh",
    "split_cpu",
    "summarise",
    "train_arrays",
]
