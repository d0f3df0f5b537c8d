"""Exceptions that stand for something other than a bug."""

from typing import ClassVar


class InputError(ValueError):
    """Something the user gave (an option, a file, a folder, a name) cannot be used.

    The message is one line that says what was expected, what arrived and what to do. Command lines print that
    line and exit with code 2; any other exception is a bug of ours and keeps its traceback.
    """

    exit_code: ClassVar[int] = 2


class StorageError(InputError):
    """The disk does not take what a run writes: it is full or broken, or writing is no longer allowed.

    Nothing is wrong with what the user gave, so command lines exit with code 74, EX_IOERR of sysexits.h, and a script
    can tell that the same command may go on once there is room.
    """

    exit_code = 74


class LostError(InputError):
    """Another process of a run has ended. The same commands may be started again: exit code 75, EX_TEMPFAIL."""

    exit_code = 75
