"""Finding digits in larger pictures: scenes to learn from, a network swept over them, boxes, and how good they are."""

from cnn_jax.detection.boxes import cover, iou, non_max_suppression
from cnn_jax.detection.finding import Detections, candidates, find
from cnn_jax.detection.measure import Found, figures, find_in_scenes
from cnn_jax.detection.pages import find_in_picture
from cnn_jax.detection.precision import average_precision, match, precision_recall
from cnn_jax.detection.results import FILES, read_figures, write_results
from cnn_jax.detection.runs import as_trained_on, check_finds, find_in_test_scenes, load_digits
from cnn_jax.detection.scenes import Scene, SceneConfig, make_scene
from cnn_jax.detection.source import Windows, test_windows, train_windows
from cnn_jax.detection.sweep import pyramid, stride_of, sweep
from cnn_jax.detection.windows import BACKGROUND, cut_windows, framed, window_dataset

__all__ = [
    "BACKGROUND",
    "FILES",
    "Detections",
    "Found",
    "Scene",
    "SceneConfig",
    "Windows",
    "as_trained_on",
    "average_precision",
    "candidates",
    "check_finds",
    "cover",
    "cut_windows",
    "figures",
    "find",
    "find_in_picture",
    "find_in_scenes",
    "find_in_test_scenes",
    "framed",
    "iou",
    "load_digits",
    "make_scene",
    "match",
    "non_max_suppression",
    "precision_recall",
    "pyramid",
    "read_figures",
    "stride_of",
    "sweep",
    "test_windows",
    "train_windows",
    "window_dataset",
    "write_results",
]
