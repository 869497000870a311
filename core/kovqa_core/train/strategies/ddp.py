"""ddp: every process holds the full model; gradients are averaged once per optimizer step."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from kovqa_core.train import optim
from kovqa_core.train.strategies.base import TrainStrategy


class DdpStrategy(TrainStrategy):
    """Full weights, gradients and moments on every process."""

    def wrap(self) -> None:
        """Copy the model to the device; wrap it if there are other processes."""
        self.wrapped_model = self.model.to(self.device)
        self.optimizer = optim.make_optimizer(self.model, self.model, self.run.recipe.optim)
        if self.rank.world_size > 1:
            gpu = [self.device.index] if self.device.type == "cuda" else None
            # Gradients are views of DDP's buckets: one copy of them, not two.
            self.wrapped_model = DistributedDataParallel(
                self.model, device_ids=gpu, gradient_as_bucket_view=True
            )
            if self.run.profile.gradient_reduction == "bf16":
                # Not the hook itself: by its name torch refuses it on a CPU, where gloo reduces bf16 as well.
                self.wrapped_model.register_comm_hook(
                    None, lambda group, bucket: bf16_compress_hook(group, bucket)
                )

    def _no_sync(self, *, last: bool) -> AbstractContextManager[None]:
        """DDP all-reduces in every backward pass outside of `no_sync`: only the last micro-batch's may.

        The gradients of the earlier ones are in the same buckets by then, so the sum is averaged, once.
        """
        if isinstance(self.wrapped_model, DistributedDataParallel) and not last:
            return self.wrapped_model.no_sync()
        return contextlib.nullcontext()
