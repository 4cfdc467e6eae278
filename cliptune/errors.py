"""What can go wrong, in sentences that say what was expected, what was found and what to do."""


class CliptuneError(Exception):
    """The parent of every error that is meant for a user: its text is the whole message."""

    exit_code = 1


class ConfigError(CliptuneError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class TaskError(CliptuneError):
    """The examples, the template or the label words cannot be used."""

    exit_code = 2


class ModelError(CliptuneError):
    """The model cannot be found, loaded or read out."""

    exit_code = 2


class RunError(CliptuneError):
    """A run directory cannot be written or read."""

    exit_code = 2


class HeldError(RunError):
    """Another search writes the run directory, or died so recently that it may still."""


class StrategyError(CliptuneError):
    """ask() and tell() were called out of turn or with the wrong shapes."""


class ScorerError(CliptuneError):
    """Scoring failed: a reward that is not a number, an actor that cannot be replaced, ..."""


class OutOfMemoryError(ScorerError):
    """A micro-batch did not fit into the device's memory; a smaller one may."""


class ClusterError(CliptuneError):
    """A cluster cannot be reached, does not let us in, or refuses what is asked of it."""
