"""Where arrays come from: TFDS data sets read without TensorFlow, folders of pictures, files of arrays."""

from cnn_jax.data.arrays import Arrays
from cnn_jax.data.batching import batch_indices, eval_batches, holdout, holdout_indices, train_order
from cnn_jax.data.dataset import Dataset, Statistics, make_datasets, normalise, rescale, to_pixels
from cnn_jax.data.drawings import Ink
from cnn_jax.data.encoded import Encoded
from cnn_jax.data.folder import Folder
from cnn_jax.data.loading import load
from cnn_jax.data.resizing import fit_images
from cnn_jax.data.source import TFDS, Source

__all__ = [
    "TFDS",
    "Arrays",
    "Dataset",
    "Encoded",
    "Folder",
    "Ink",
    "Source",
    "Statistics",
    "batch_indices",
    "eval_batches",
    "fit_images",
    "holdout",
    "holdout_indices",
    "load",
    "make_datasets",
    "normalise",
    "rescale",
    "to_pixels",
    "train_order",
]
