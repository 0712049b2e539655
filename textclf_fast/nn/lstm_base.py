"""The base of FusedLSTM: an nn.LSTM to everybody but torch.compile, which refuses those.

Dynamo, torch.compile's tracer, gives up on any module for which ``isinstance(module, nn.LSTM)`` holds, whatever its
forward does, unless the user sets ``torch._dynamo.config.allow_rnn``. User code asks the same question to initialize
weights, count operations and the like, and there the answer has to be yes.

So the real type derives from nn.LSTM's base alone, and ``__class__``, where ``isinstance`` looks next, answers with a
class that derives from nn.LSTM too, its *face*. (That is Python's way for stand-ins; unittest.mock goes it.) Only
questions that come from Dynamo's own code get the real type.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.rnn import RNNBase

if TYPE_CHECKING:
    LSTMBase = nn.LSTM
else:

    class LSTMBase(RNNBase):
        """nn.LSTM without its name in the real type's bases.

        What can be told from a subclass of nn.LSTM: ``issubclass(type(module), nn.LSTM)`` is False, and
        ``module.__class__`` is the face, not ``type(module)``.
        """

        get_expected_cell_size = nn.LSTM.get_expected_cell_size
        check_forward_args = nn.LSTM.check_forward_args
        permute_hidden = nn.LSTM.permute_hidden
        forward = nn.LSTM.forward

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.__class__ = type(self)  # made by way of its face, ``module.__class__(...)``, it gets the real type
            super().__init__("LSTM", *args, **kwargs)

        @property
        def __class__(self) -> type:
            asking = sys._getframe().f_back
            from_dynamo = asking is not None and asking.f_globals.get("__name__") == "torch._dynamo.variables.builder"
            return type(self) if from_dynamo else _face(type(self))

        @__class__.setter
        def __class__(self, cls: type) -> None:
            # torch.nn.utils.parametrize derives classes from the face, and puts it back in the end.
            object.__dict__["__class__"].__set__(self, _real(cls))

        def __reduce_ex__(self, protocol: int) -> tuple[Any, ...]:
            # The usual function, copyreg.__newobj__, is refused by pickle where type and __class__ differ.
            _, _, *state = super().__reduce_ex__(max(protocol, 2))
            return object.__new__, (_real(type(self)),), *state


def _face(cls: Any) -> type:
    """What an instance of this class shows as its class."""
    if issubclass(cls, nn.LSTM):
        return cls
    if "_face" not in cls.__dict__:
        shown = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
        cls._face = type(cls.__name__, (cls, nn.LSTM), {**shown, "_real": cls})
    return cls._face


def _real(cls: type) -> type:
    """The class that this is the face of; another as it is."""
    return cls.__dict__.get("_real", cls)
