"""Pictures of data, networks and results: functions that return matplotlib figures, and the mathematics behind them.

    from cnn_jax import pictures, runs

    run = runs.load_run(path)
    pictures.filters(run.variables["params"]["C1"]["kernel"])

In a notebook the figure that ends a cell is shown; `figure.savefig("filters.png")` keeps one.
"""

from cnn_jax.pictures.attribution import class_activation_map, grad_cam, layer_names, layer_outputs, saliency
from cnn_jax.pictures.batch import batch
from cnn_jax.pictures.confusion import confusion_matrix
from cnn_jax.pictures.curves import curves
from cnn_jax.pictures.detections import detections, draw_boxes
from cnn_jax.pictures.features import feature_maps, feature_maps_in_two
from cnn_jax.pictures.filters import filters, filters_before_after
from cnn_jax.pictures.heat import heat_maps
from cnn_jax.pictures.mistakes import confident_mistakes
from cnn_jax.pictures.overlay import curves_of_runs
from cnn_jax.pictures.race import race
from cnn_jax.pictures.sweeps import swept, swept_pair

__all__ = [
    "batch",
    "class_activation_map",
    "confident_mistakes",
    "confusion_matrix",
    "curves",
    "curves_of_runs",
    "detections",
    "draw_boxes",
    "feature_maps",
    "feature_maps_in_two",
    "filters",
    "filters_before_after",
    "grad_cam",
    "heat_maps",
    "layer_names",
    "layer_outputs",
    "race",
    "saliency",
    "swept",
    "swept_pair",
]
