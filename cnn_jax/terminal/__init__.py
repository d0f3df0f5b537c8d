"""The edge between the package and a terminal, or a pipe, a log file, or nothing at all in its place.

Text of the user's (names of files, classes, data sets; messages of other libraries) is shown as plain text in one line,
signs that the output's encoding lacks are written with those it has, and output that nobody takes any more stops no
run. Imports nothing heavy, so that a command can begin with it.
"""

from cnn_jax.terminal.output import complain, console, flush, say, shell, standard_streams, width
from cnn_jax.terminal.tables import show_table
from cnn_jax.terminal.text import one_line, plain

__all__ = [
    "complain",
    "console",
    "flush",
    "one_line",
    "plain",
    "say",
    "shell",
    "show_table",
    "standard_streams",
    "width",
]
