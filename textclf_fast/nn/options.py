"""What FusedLSTM can do that nn.LSTM cannot, as one record of options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class LSTMOptions:
    """Options of :class:`textclf_fast.nn.FusedLSTM` beyond nn.LSTM's; all off by default.

    At the speed of the kernels, in training and in evaluation:

    Attributes:
        weight_dropout: DropConnect on W_hh: each of its numbers is zero with this probability, the others are divided
            by what is left; one mask a forward for each layer and direction, in training only. S. Merity, N. S. Keskar
            and R. Socher, Regularizing and Optimizing LSTM Language Models, 2017.
        variational_dropout: of the numbers that a layer reads, one mask a row, the same at every step, in training
            only: one rate, or a pair of them, for the first layer's input and between layers. Y. Gal and Z.
            Ghahramani, A Theoretically Grounded Application of Dropout in Recurrent Neural Networks, 2016. It is apart
            from ``dropout``, whose mask is new at every step.
        learn_initial_state: parameters ``h_0`` (L * D, 1, H or P) and ``c_0`` (L * D, 1, H), zero at first, that every
            row starts from where the call gives no ``hx``.
        checkpoint_every: the training forward keeps h and c at every so many steps alone, and the backward computes
            the rest again. See :mod:`textclf_fast.nn.checkpointed` for what it saves and what it costs.

    Step by step in PyTorch, many times slower than the kernels (:mod:`textclf_fast.nn.stepwise`):

    Attributes:
        recurrent_dropout: dropout of the candidate g, a new mask at every step, in training only: what is dropped is an
            update of c, never what c remembers. S. Semeniuta, A. Severyn and E. Barth, Recurrent Dropout without Memory
            Loss, 2016.
        zoneout: one rate, or a pair of them, for h and c: with this probability a unit keeps the value of the step
            before; in evaluation each is the expected mixture of both. D. Krueger et al., Zoneout: Regularizing RNNs by
            Randomly Preserving Hidden Activations, 2017. h is made of the new c before that is zoned out, as there.
        layer_norm: W_ih x, W_hh h and, on the way to h, c are normalised, each with a gain: parameters ``norm_ih_l0``,
            ``norm_hh_l0`` (4H), ``norm_cell_l0`` (H) and so on; the LSTM's own biases serve the first two, and
            ``norm_cell_bias_l0`` (H) the third. J. L. Ba, J. R. Kiros and G. E. Hinton, Layer Normalization, 2016, with
            the mean and variance of all 4H gates together, as in its equations 20 to 22.

    Raises:
        ValueError: a value out of range, or a combination that there is not; names the option and what was expected.
    """

    weight_dropout: float = 0.0
    variational_dropout: float | tuple[float, float] = 0.0
    learn_initial_state: bool = False
    checkpoint_every: int | None = None
    recurrent_dropout: float = 0.0
    zoneout: float | tuple[float, float] = 0.0
    layer_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("weight_dropout", "recurrent_dropout"):
            check_rate(name, getattr(self, name))
        for name, of in (("variational_dropout", "the first input and between layers"), ("zoneout", "h and c")):
            value = getattr(self, name)
            if isinstance(value, list | tuple):
                if len(value) != 2:
                    raise ValueError(f"{name}: expected one rate, or a pair for {of}, got {value!r}")
                object.__setattr__(self, name, tuple(value))
            for rate in as_pair(value):
                check_rate(name, rate)
        for name in ("learn_initial_state", "layer_norm"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        every = self.checkpoint_every
        if every is None:
            return
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"checkpoint_every: expected a number of steps of at least 1, or None, got {every!r}")
        if self.steps_differ:
            raise ValueError(
                "checkpoint_every: expected None beside recurrent_dropout, zoneout and layer_norm, whose steps are not "
                f"the kernels', got {every}"
            )

    @property
    def steps_differ(self) -> bool:
        """Whether a step is another than that of the kernels, in training at least."""
        return bool(self.recurrent_dropout or any(as_pair(self.zoneout)) or self.layer_norm)

    def change_layers(self, training: bool) -> bool:
        """Whether layers are computed in another way than without options."""
        if any(as_pair(self.zoneout)) or self.layer_norm:
            return True
        return training and bool(
            self.weight_dropout
            or any(as_pair(self.variational_dropout))
            or self.recurrent_dropout
            or self.checkpoint_every
        )

    def __str__(self) -> str:
        """Those that are set, as arguments."""
        given = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return ", ".join(f"{name}={value}" for name, value, default in given if value != default)


def as_pair(value: float | tuple[float, float]) -> tuple[float, float]:
    """A rate of two things, or one of each."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)  # type: ignore[return-value]


def check_rate(name: str, value: Any) -> None:
    """Refuses what is not a probability."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a probability, 0 <= p <= 1, got {value!r}")


DEFAULTS = LSTMOptions()
