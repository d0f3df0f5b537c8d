"""`toys.parts`, a module of parts that the package takes for its own."""

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("cnn_jax.toy_parts", Path(__file__).with_name("toy_parts.py"))
parts = sys.modules["cnn_jax.toy_parts"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parts)
