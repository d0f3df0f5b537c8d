"""Runs, the edge of training: where and how fast it goes, what is kept on disk, and what is shown."""

from cnn_jax.runs.devices import split_cpu
from cnn_jax.runs.execution import CheckpointConfig, Execution, Place
from cnn_jax.runs.fit import Result, fit
from cnn_jax.runs.load import Run, load_run
from cnn_jax.runs.loop import TrainingDivergedError
from cnn_jax.runs.memory import keep_memory
from cnn_jax.runs.replicas import map_replicas, replica_mesh
from cnn_jax.runs.sweep import Sweep, sweep

__all__ = [
    "CheckpointConfig",
    "Execution",
    "Place",
    "Result",
    "Run",
    "Sweep",
    "TrainingDivergedError",
    "fit",
    "keep_memory",
    "load_run",
    "map_replicas",
    "replica_mesh",
    "split_cpu",
    "sweep",
]
