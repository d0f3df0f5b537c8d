"""A run as one HTML file: what it is, how it learned, how well it does, and what it looks like inside."""

from cnn_jax.report.comparison import write_comparison
from cnn_jax.report.sweeps import write_sweep
from cnn_jax.report.write import write_report

__all__ = ["write_comparison", "write_report", "write_sweep"]
