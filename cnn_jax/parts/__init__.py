"""Parts: the configured objects that a run is made of, and the texts that name them.

There are seven kinds: model, loss, metric, optimiser, schedule, augmentation, data source. A part is a frozen dataclass
that derives from the base class of its kind (a Linen module, for models), and a new one is one class anywhere. Its text
is its constructor call, `sgd(learning_rate=0.1)` or `my_model.py:Tiny(depth=3)`, the same wherever it is written.
"""

from cnn_jax.parts.base import (
    Part,
    is_concrete,
    is_held,
    is_non_negative,
    is_positive,
    is_share,
    snake,
)
from cnn_jax.parts.classes import fields, hints, is_module, kind_in, known_of, noun, registry
from cnn_jax.parts.reading import example, parse, parse_several
from cnn_jax.parts.user_files import files_of
from cnn_jax.parts.values import Mismatch, plain
from cnn_jax.parts.writing import class_text, short_text, text

__all__ = [
    "Mismatch",
    "Part",
    "class_text",
    "example",
    "fields",
    "files_of",
    "hints",
    "is_concrete",
    "is_held",
    "is_module",
    "is_non_negative",
    "is_positive",
    "is_share",
    "kind_in",
    "known_of",
    "noun",
    "parse",
    "parse_several",
    "plain",
    "registry",
    "short_text",
    "snake",
    "text",
]
