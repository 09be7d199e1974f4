"""What can go wrong in the engine, as types. Free of torch: a command line imports it first."""

from typing import Literal

MemoryFault = Literal[
    "missing",  # no memory there, or a file of it is gone
    "unfinished",  # a checkpoint: `Engine.resume` goes on from it
    "damaged",  # a file is not as it was written
    "newer",  # written in a format that this version does not know yet
    "older",  # written in a format that this version does not know any more
    "model",  # read by another model
    "tokenizer",
    "settings",  # read with other settings that change numbers
    "locked",  # someone else is writing it
    "foreign",  # the folder holds files that are no memory
    "full",  # not enough room on the disk
    "storage",  # the file system refused
]


class EngineError(Exception):
    """Base of all engine errors: `message` says what and where, `hint` the next step."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(EngineError):
    """A configuration or an argument that cannot be used as it is."""


class ModelNotFound(EngineError):
    """The model's files are not here and may not, or cannot, be fetched."""


class ModelFileError(ModelNotFound):
    """A model's file is missing, no model, damaged, or stored in a way that is not read."""


class UnsupportedModel(EngineError):
    """The engine cannot serve a model of this kind (ALiBi, learned positions, a state alone)."""


class UnsupportedCall(EngineError):
    """The engine cannot serve this way of calling the model (beams, padding, use_cache=False)."""


class OutOfMemory(EngineError):
    """A device or the host ran out of memory, or is predicted to."""


class MemoryFileError(EngineError):
    """A memory file cannot be used, or not be written; `reason` says which of the known ways."""

    def __init__(self, message: str, hint: str = "", *, reason: MemoryFault = "damaged") -> None:
        super().__init__(message, hint)
        self.reason: MemoryFault = reason
