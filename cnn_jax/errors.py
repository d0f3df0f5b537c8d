"""The one exception that stands for bad input rather than for a bug."""


class InputError(ValueError):
    """Something the user gave (an option, a file, a folder, a name) cannot be used.

    The message is one line that says what was expected, what arrived and what to do. Command lines print that
    line and exit with code 2; any other exception is a bug of ours and keeps its traceback.
    """
