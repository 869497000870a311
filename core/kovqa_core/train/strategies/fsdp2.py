"""fsdp2: weights, gradients and moments are cut up; torch's `fully_shard`, layer by layer.

Weights travel and are kept in fp32 (autocast computes in 16 bits, as on ddp), and gradients are
averaged after every micro-batch, so that no process ever holds all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from kovqa_core.train import optim
from kovqa_core.train.strategies.ddp import LocalShards, TrainStrategy, broadcast_buffers
from kovqa_core.train.strategies.full_weights import make_full_parameter_copy, summon_full_params


class Fsdp2Strategy(TrainStrategy):
    """Every process holds a piece of each weight."""

    together = True

    def wrap(self) -> None:
        """Cut the model up, one layer at a time: no device ever holds all of it."""
        self.twin = make_full_parameter_copy(self.model)
        mesh = init_device_mesh(self.device.type, (dist.get_world_size(),))
        for unit in self.model.fsdp_units():
            fully_shard(unit, mesh=mesh)
        self.net = fully_shard(self.model, mesh=mesh).to(self.device)
        self.optimizer = optim.make_optimizer(self.model, self.model, self.run.recipe.optim)

    def pieces(self) -> LocalShards:
        """Rows of each weight."""
        return {name: p.detach().to_local() for name, p in self.model.named_parameters()}

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This process's rows."""
        return self._cut(self.model.get_parameter(name), whole).to_local()

    def _cut(self, like: Any, whole: Tensor) -> DTensor:
        # Every process has all of it: nothing needs to be sent.
        return distribute_tensor(whole.to(self.device), like.device_mesh, like.placements, src_data_rank=None)

    @contextlib.contextmanager
    def plain(self, averages: LocalShards | None, everywhere: bool) -> Iterator[Any]:
        """The twin, with all rows of all weights."""
        broadcast_buffers(self.model)
        with summon_full_params(
            self.twin, self.model, self._wholes(averages), everywhere, self.rank.first
        ) as model:
            yield model

    def _wholes(self, averages: LocalShards | None) -> Iterator[tuple[str, Tensor]]:
        for name, p in self.model.named_parameters():
            piece: Any = p.detach() if averages is None else self._joined(p, averages[name])
            yield name, piece.full_tensor()

    def _joined(self, like: Any, piece: Tensor) -> DTensor:
        return DTensor.from_local(
            piece, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
        )

    def whole_moment(self, moment: Any) -> Tensor:
        """All rows of it."""
        whole = moment.full_tensor()
        return whole.cpu() if self.rank.first else whole.new_empty(0)

    def own_moment(self, name: str, parameter: Tensor, whole: Tensor) -> Tensor:
        """This process's rows, with what torch knows of the others'."""
        return self._cut(parameter, whole)
