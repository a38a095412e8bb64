"""The errors that a user can cause, and mend.

Each message says the rule, the value that broke it, and the cure. The command-line programs print
the message alone; anything that is not an `AFUNetError` is a bug of ours and keeps its trace.
"""

from collections.abc import Iterable


class AFUNetError(Exception):
    """Base of every error that the project raises on purpose."""


class DataError(AFUNetError):
    """An image, a scene or a data folder is missing, damaged, or breaks a rule."""


class WeightsError(AFUNetError):
    """A file of weights cannot be read, or belongs to another architecture."""


class CheckpointError(AFUNetError):
    """A working directory or checkpoint is missing, damaged, or of another configuration."""


class ConfigError(AFUNetError):
    """A configuration value is out of range, or contradicts another one or the machine."""


class TrainingError(AFUNetError):
    """Training cannot go on, for example because the loss is no longer finite."""


def some(names: Iterable[str], most: int = 5) -> str:
    """The first names of many, for a message."""
    names = list(names)
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '') or 'nothing'
