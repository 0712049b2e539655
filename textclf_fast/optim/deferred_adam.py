"""DeferredAdam: Adam that touches only the rows of an embedding that are in use."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from textclf_fast.optim.deferred_rows import DeferredRows, RowKeeper, StepNumbers


class DeferredAdam(torch.optim.Adam):
    """Adam or AdamW, with the results of dense gradients, at the cost of the rows that a batch looks up.

    Under Adam a row moves in every step, with a gradient or without. Here the steps of a row that is not in the batch
    are put off until it is next looked up, and then made up for together. So the result is Adam's own, which that of
    torch.optim.SparseAdam is not; it differs by rounding alone (a row's missed steps are summed before they are
    rounded, so that it is rather nearer to exact arithmetic).

    It applies to the weights of ``nn.Embedding(sparse=True)`` modules in ``model``, on the CPU, contiguous, float32 or
    float64, that no other module than such embeddings uses. All other parameters take PyTorch's fused Adam, a sparse
    gradient among them made dense before.

    Lookups through the module, ``state_dict()``, ``load_state_dict()`` and inference with ``FusedEmbeddingLSTM`` see
    rows that are up to date, and so do copies and pickles of a FusedEmbeddingLSTM. Whoever reads or changes
    ``embedding.weight`` directly, or copies or pickles an nn.Embedding by itself, calls :meth:`synchronize` before:
    else some rows are behind. When training is over, :meth:`detach` leaves the model as if nothing had been deferred.

    ``state_dict()`` is that of torch.optim.Adam, and either loads the other's. A copy of the optimizer treats all
    gradients as dense. Not for torch.amp.GradScaler's scaled gradients: unscale them first, as its ``step`` does.

    Source of the method: D. P. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, 2015; decoupled weight
    decay: I. Loshchilov and F. Hutter, Decoupled Weight Decay Regularization, 2019.

    Args:
        params: as for any optimizer: parameters, (name, parameter) pairs, or groups.
        model: the module in which the embeddings are found.
        lr, betas, eps, weight_decay: as in torch.optim.Adam; eps above 0. Any may change from step to step.
        decoupled_weight_decay: AdamW's instead of Adam's.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: an option out of range.
    """

    def __init__(
        self,
        params: Any,
        model: nn.Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model: expected an nn.Module, got {type(model).__name__}")
        self._embeddings = _deferrable(model)
        self._rows: dict[Tensor, DeferredRows] = {}
        self._keepers: list[RowKeeper] = []
        super().__init__(
            params, lr, betas, eps, weight_decay, fused=True, decoupled_weight_decay=decoupled_weight_decay
        )
        self._step_supports_amp_scaling = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in any optimizer.

        Raises:
            ValueError: eps of 0 or less, with which a weight without a gradient would become NaN.
        """
        # torch keeps its compiler out of this method, for which it imports all of it at the first call: 1.1 s. The
        # function itself needs nothing of it.
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)
        group = self.param_groups[-1]
        if not group["eps"] > 0:
            raise ValueError(f"eps: expected a number above 0, got {group['eps']}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure``, if any, computes the loss and its gradients, and step returns what it returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            others = []
            for param in group["params"]:
                if param.grad is None:
                    continue
                if param in self._embeddings:
                    self._step_rows(param, group)
                    continue
                if param.grad.is_sparse:
                    param.grad = param.grad.to_dense()
                others.append(param)
            if others:
                self._step_others({**group, "params": others})
        return loss

    def _step_rows(self, param: Tensor, group: dict[str, Any]) -> None:
        state = self.state[param]
        rows = self._rows.get(param)
        if rows is None or not rows.attached:
            rows = self._attach(param)
        decay, decoupled = group["weight_decay"], group["decoupled_weight_decay"]
        beta1, beta2 = group["betas"]
        assert param.grad is not None
        rows.take_step(
            param.grad,
            StepNumbers(
                float(group["lr"]), beta1, beta2, group["eps"], 0.0 if decoupled else decay, decay if decoupled else 0.0
            ),
        )
        state["step"] += 1

    def _attach(self, param: Tensor) -> DeferredRows:
        state = self.state[param]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(param)
            state["exp_avg_sq"] = torch.zeros_like(param)
        rows = DeferredRows(param, state["exp_avg"], state["exp_avg_sq"], int(state["step"]))
        self._rows[param] = rows
        self._keepers += [RowKeeper.attach(embedding, rows) for embedding in self._embeddings[param]]
        return rows

    def _step_others(self, group: dict[str, Any]) -> None:
        # What torch.optim.Adam.step does for a group. Its step itself would run the hooks of this one a second time.
        lists: tuple[list[Tensor], ...] = ([], [], [], [], [], [])
        has_complex = self._init_group(group, *lists)
        params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps = lists
        beta1, beta2 = group["betas"]
        adam(
            params,
            grads,
            exp_avgs,
            exp_avg_sqs,
            max_exp_avg_sqs,
            steps,
            amsgrad=False,
            has_complex=has_complex,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            fused=True,
            decoupled_weight_decay=group["decoupled_weight_decay"],
        )

    def synchronize(self) -> None:
        """Brings all rows of all weights up to date."""
        for rows in self._rows.values():
            rows.synchronize()

    def backlog(self) -> dict[Tensor, tuple[Tensor, Tensor]]:
        """Of each weight with rows that are deferred, what :meth:`resume` needs beside the weight and its moments.

        Unlike ``state_dict()`` it changes nothing: weight, moments and backlog of one moment continue to the same bits.
        """
        return {param: rows.backlog() for param, rows in self._rows.items() if rows.attached}

    def resume(self, backlog: dict[Tensor, tuple[Tensor, Tensor]]) -> None:
        """Goes on where :meth:`backlog` was taken; weights and moments are those of that moment already.

        Raises:
            ValueError: a backlog that is not of these weights.
        """
        self.detach()
        for param, (history, done) in backlog.items():
            if param not in self._embeddings:
                raise ValueError("backlog: of a weight whose rows are not deferred")
            self._attach(param).resume(history, done)

    def detach(self) -> None:
        """Brings all rows up to date and takes the hooks off the model. A later step puts them on again."""
        for keeper in self._keepers:
            keeper.detach()
        self._keepers = []
        self._rows = {}

    def state_dict(self) -> dict[str, Any]:
        """That of torch.optim.Adam."""
        self.synchronize()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what this class, torch.optim.Adam or AdamW saved.

        Raises:
            ValueError: as in any optimizer, or the state is of Adam with amsgrad or maximize.
        """
        for group in state_dict["param_groups"]:
            for name in ("amsgrad", "maximize"):
                if group.get(name):
                    raise ValueError(f"state_dict: {name} is {group[name]}, expected False")
        self.detach()
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        self.synchronize()
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            # Neither Adam's fused kernel nor ours has these otherwise.
            group.update(fused=True, foreach=None, capturable=False, differentiable=False)
        super().__setstate__(state)
        self._step_supports_amp_scaling = False
        for name, empty in (("_embeddings", {}), ("_rows", {}), ("_keepers", [])):
            self.__dict__.setdefault(name, empty)


def _deferrable(model: nn.Module) -> dict[Tensor, list[nn.Embedding]]:
    """The weights whose rows are only ever read by nn.Embedding(sparse=True) modules, and those modules."""
    users: dict[Tensor, list[nn.Module]] = {}
    for module in model.modules():
        for param in module._parameters.values():
            if param is not None:
                users.setdefault(param, []).append(module)
    return {
        param: [module for module in modules if isinstance(module, nn.Embedding)]
        for param, modules in users.items()
        if all(isinstance(module, nn.Embedding) and module.sparse for module in modules) and _fits(param)
    }


def _fits(param: Tensor) -> bool:
    return param.is_cpu and param.is_contiguous() and param.dtype in (torch.float32, torch.float64)
