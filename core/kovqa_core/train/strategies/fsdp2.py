"""fsdp2: weights, gradients and moments are sharded by torch's `fully_shard`, layer by layer.

Weights are sent and kept in fp32 (autocast computes in 16 bits, as with ddp; sent in 16 they would reach norms,
which want fp32 beside an input of fp32). Gradients are averaged after every micro-batch, in the numbers that
`profile.gradient_reduction` names, so that no process ever holds all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from kovqa_core.models.family import FamilyModel
from kovqa_core.train import optim
from kovqa_core.train.strategies.base import LocalShards, TrainStrategy, broadcast_buffers
from kovqa_core.train.strategies.full_weights import make_full_parameter_copy, summon_full_params


class Fsdp2Strategy(TrainStrategy):
    """Every process holds some rows (first dimension) of each weight."""

    collective_forward = True

    def wrap(self) -> None:
        """Shard the model one layer at a time: no device ever holds all of it."""
        # Before sharding: the copy is made of the full shapes.
        self.full_parameter_copy = make_full_parameter_copy(self.model)
        mesh = init_device_mesh(self.device.type, (dist.get_world_size(),))
        reduced = torch.bfloat16 if self.run.profile.gradient_reduction == "bf16" else None
        policy = MixedPrecisionPolicy(reduce_dtype=reduced, cast_forward_inputs=False)
        for unit in self.model.fsdp_units():  # inner ones first; each is gathered and freed as a whole
            fully_shard(unit, mesh=mesh, mp_policy=policy)
        fully_shard(self.model, mesh=mesh, mp_policy=policy)  # what no unit holds
        # Moved once it is sharded: only this process's rows go to the device. The optimizer comes
        # last: `fully_shard` puts new parameters into the model, and one made before would step the old ones.
        self.wrapped_model = self.model.to(self.device)
        self.optimizer = optim.make_optimizer(self.model, self.model, self.run.recipe.optim)

    def local_shards(self) -> LocalShards:
        """Rows of each weight."""
        return {name: cast("DTensor", p.detach()).to_local() for name, p in self.model.named_parameters()}

    def shard(self, name: str, full: Tensor) -> Tensor:
        """This process's rows."""
        return self._distribute(cast("DTensor", self.model.get_parameter(name)), full).to_local()

    def _distribute(self, like: DTensor, full: Tensor) -> DTensor:
        # src_data_rank=None: every process has all of it, each takes its own rows, nothing is sent.
        return distribute_tensor(full.to(self.device), like.device_mesh, like.placements, src_data_rank=None)

    @contextlib.contextmanager
    def full_model(self, averages: LocalShards | None, *, everywhere: bool) -> Iterator[FamilyModel | None]:
        """The full copy, with all rows of all weights."""
        broadcast_buffers(self.model)
        with summon_full_params(
            self.full_parameter_copy,
            self.model,
            self._full_tensors(averages),
            everywhere=everywhere,
            is_main_process=self.rank.is_main_process,
        ) as model:
            yield model

    def _full_tensors(self, averages: LocalShards | None) -> Iterator[tuple[str, Tensor]]:
        """Names and full tensors, gathered one at a time: at most one is full on a device beside the shards."""
        for name, p in self.model.named_parameters():
            like = cast("DTensor", p.detach())
            yield name, (like if averages is None else self._as_dtensor(like, averages[name])).full_tensor()

    def _as_dtensor(self, like: DTensor, shard: Tensor) -> DTensor:
        # Shape and stride are named: rows that do not divide evenly cannot be told from one shard.
        return DTensor.from_local(
            shard, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
        )

    def full_moment(self, moment: Tensor) -> Tensor:
        """All rows of it."""
        return cast("DTensor", moment).full_tensor()

    def local_moment(self, name: str, parameter: Tensor, full: Tensor) -> Tensor:
        """This process's rows, as the DTensor that AdamW expects beside a DTensor."""
        return self._distribute(cast("DTensor", parameter), full)
