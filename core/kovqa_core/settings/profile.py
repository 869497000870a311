"""Profile: the machine. About hardware only; an experiment means the same on every profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from kovqa_core.settings.reading import Settings


class Profile(Settings):
    """One kind of machine, as its YAML file states it."""

    name: str = Field(min_length=1)
    gpu: str = Field("", description="part of the GPU's name, as nvidia-smi prints it; empty: no GPU")
    gpu_memory_gb: int = Field(0, ge=0, description="memory of one GPU")
    launcher: Literal["torchrun"] = "torchrun"
    nodes: Literal[1] = 1
    processes_per_node: int = Field(1, ge=1, description="training processes: one per GPU")
    loader_workers: int = Field(0, ge=0, description="processes per training process that prepare batches")
    threads: int = Field(0, ge=0, description="CPU threads of one process; 0: cores / processes")
    precision: Literal["bf16", "fp16", "fp32"] = Field(
        "bf16", description="of the model's arithmetic; weights are fp32; fp16 scales the loss, for a T4"
    )
    strategy: Literal["ddp", "zero1", "zero2", "zero3", "fsdp2"] = Field(
        "ddp", description="what processes share out: ddp nothing, zero3 and fsdp2 all of it"
    )
    deepspeed: str = Field("", description="file of DeepSpeed's own settings, for the zero strategies")
    micro_batch: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {"default": 8}, description="examples one process can hold, by recipe name; `default` for the rest"
    )
    activation_checkpointing: bool = Field(False, description="compute activations twice to save memory")
    compile: bool = Field(False, description="torch.compile the model")
    env: dict[str, str] = Field({}, description="environment variables of the workers")

    @field_validator("deepspeed")
    @classmethod
    def _where_it_is(cls, path: str) -> str:
        return str(Path(path).expanduser().resolve()) if path else ""

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """What the model runs on."""
        return "cuda" if self.gpu else "cpu"

    @property
    def processes(self) -> int:
        """Training processes in all."""
        return self.nodes * self.processes_per_node

    def holds(self, recipe: str) -> int:
        """Examples one process can hold at once for a recipe."""
        return self.micro_batch.get(recipe, self.micro_batch.get("default", 8))
