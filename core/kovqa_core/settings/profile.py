"""Profile: the machine. Only about hardware and how it is reached: an experiment means the same on each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from kovqa_core.messages import message
from kovqa_core.settings.strict_yaml import StrictSettings

# What sbatch's --time reads: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, …
_SLURM_TIME_PATTERN = r"^(\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2}|UNLIMITED)?$"

_HOST_AND_PORT = r"(\[[0-9a-fA-F:]+\]|[^\s:/]+):\d{1,5}"  # an IPv6 address stands in brackets

CAREFUL_MICRO_BATCH = 8  # examples, where neither a profile nor a count says how many fit


class SlurmSettings(StrictSettings):
    """What is requested of SLURM (launchers srun and sbatch). Empty: the cluster's own default."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # an account may be a number, a time minutes

    partition: str = Field("", description="partition of the job (--partition)", examples=["gpu"])
    account: str = Field("", description="account that pays for the job (--account)", examples=["mylab"])
    qos: str = Field("", description="quality of service (--qos)", examples=["normal"])
    time: str = Field(
        "",
        pattern=_SLURM_TIME_PATTERN,
        description="time limit (--time), as text: 24:00:00 or 2-00:00:00",
        examples=["24:00:00"],
    )
    gpus: Literal["gpus-per-node", "gres", "none"] = Field(
        "gpus-per-node", description="how GPUs are requested; older clusters know gres only, some neither"
    )
    gpu_type: str = Field(
        "", description="the cluster's name of this GPU, where it has several kinds: a100", examples=["a100"]
    )
    cpus_per_task: int = Field(
        0,
        ge=0,
        description="cores of a task (--cpus-per-task); 0: each process's loader workers and one more",
        examples=[8],
    )
    memory: str = Field("", description="memory of one node (--mem), like 200G", examples=["200G"])
    tasks: Literal["gpu", "node"] = Field(
        "gpu", description="one srun task per GPU, or one per node that starts torchrun there"
    )
    signal_seconds: int = Field(
        300,
        ge=0,
        description="signal before the time limit: enough to write a checkpoint; 0: none",
        examples=[600],
    )
    requeue: bool = Field(
        True, description="sbatch: put the job into the queue again after the time limit; it goes on"
    )
    options: list[str] = Field(
        [],
        description="further options of the job, passed on unchanged: --exclusive",
        examples=[["--exclusive"]],
    )
    srun_options: list[str] = Field(
        [],
        description="further options of the srun that starts the workers: --mpi=none, --container-image=FILE",
        examples=[["--mpi=none"]],
    )
    node_setup: list[str] = Field(
        [],
        description="shell lines run once on each node before its workers: copy data to a local disk",
        examples=[["cp -r /shared/images /local/images"]],
    )

    @model_validator(mode="after")
    def _leaves_time_to_train(self) -> SlurmSettings:
        limit = _slurm_time_seconds(self.time)
        if limit is not None and limit <= self.signal_seconds:
            raise ValueError(
                message(
                    "settings.no-time-to-train",
                    "a warning {warning} s before a time limit of {limit} s leaves no time to train: "
                    "raise time, or lower signal_seconds",
                    warning=self.signal_seconds,
                    limit=limit,
                )
            )
        return self


def _slurm_time_seconds(time: str) -> int | None:
    """A time limit in seconds, from one of SLURM's forms: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; None without one."""
    if time in ("", "UNLIMITED"):
        return None
    days, dash, rest = time.rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    if dash:  # counted from the hours
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    else:  # a single number is minutes, two are minutes and seconds
        hours, minutes, seconds = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


class Profile(StrictSettings):
    """One kind of machine, as its YAML file states it."""

    name: str = Field(min_length=1, description="its name; by default that of the file")
    from_machine: bool = Field(
        False, description="fill in what the file does not say of this machine's NVIDIA GPUs and cores: "
        "gpu_memory_gb, processes_per_node, loader_workers, precision",
    )  # fmt: skip
    gpu: str = Field(
        "",
        description="part of the GPU's name, as nvidia-smi prints it; Apple; empty: no GPU",
        examples=["A100"],
    )
    gpu_memory_gb: int = Field(
        0, ge=0, description="memory of one GPU; 0: that of this machine's smallest", examples=[80]
    )
    # A name of launch.launchers.LAUNCHERS, which lies above settings: check_launcher there refuses others.
    launcher: str = Field(
        "torchrun", description="torchrun: this machine (or typed on each node); srun: SLURM, waited for; "
        "sbatch: put into SLURM's queue",
        examples=["sbatch"],
    )  # fmt: skip
    nodes: int | str = Field(
        1,
        description="machines side by side; 1:4 with torchrun: so many as come, from 1 to 4, and may leave again",
        examples=[2],
    )
    processes_per_node: int = Field(1, ge=1, description="training processes: one per GPU", examples=[4])
    rendezvous: str = Field(
        "",
        description="torchrun over several nodes: HOST:PORT of the first, which all can reach",
        examples=["node1:29500"],
    )
    rendezvous_minutes: float = Field(
        10.0, gt=0, description="how long nodes wait for each other", examples=[30]
    )
    network_interface: str = Field(
        "", description="network interface between nodes, like ib0 (NCCL and gloo)", examples=["ib0"]
    )
    max_restarts: int = Field(
        0,
        ge=0,
        description="torchrun: how often failed workers start again, from the last checkpoint",
        examples=[3],
    )
    setup: list[str] = Field(
        [],
        description="shell lines before the workers: module load, conda activate",
        examples=[["module load cuda/12.8"]],
    )
    command_prefix: list[str] = Field(
        [],
        description="command put before the workers' python: a container, numactl",
        examples=[["apptainer", "exec", "--nv", "/shared/kovqa.sif"]],
    )
    python: str = Field(
        "",
        description="the workers' python; empty: the one that runs kovqa",
        examples=["/opt/kovqa/bin/python"],
    )
    binding: Literal["none", "node", "socket", "cores"] = Field(
        "none", description="CPUs a process is bound to: its NUMA node's, its socket's, cores of its own"
    )
    slurm: SlurmSettings = SlurmSettings()
    loader_workers: int = Field(
        0, ge=0, description="processes per training process that prepare batches", examples=[8]
    )
    threads: int = Field(
        0, ge=0, description="CPU threads of one process; 0: OMP_NUM_THREADS if it is set, else cores / processes, less "
        "one for each loader worker",
        examples=[4],
    )  # fmt: skip
    precision: Literal["bf16", "fp16", "fp32"] = Field(
        "bf16",
        description="numbers that the model computes in; weights are fp32; fp16 scales the loss, for a T4",
    )
    strategy: Literal["ddp", "zero1", "zero2", "zero3", "fsdp2"] = Field(
        "ddp", description="what is sharded among processes: ddp nothing, zero3 and fsdp2 everything"
    )
    offload_optimizer: Literal["none", "cpu"] = Field(
        "none",
        description="zero strategies: cpu keeps AdamW's moments in the machine's memory, and steps there",
    )
    offload_param: Literal["none", "cpu"] = Field(
        "none", description="zero3: cpu keeps the weights there too, until a layer is computed"
    )
    deepspeed: str = Field(
        "", description="file of DeepSpeed's own settings, for the zero strategies", examples=["ds.json"]
    )
    micro_batch: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="examples one process can hold, by recipe name; `default` for the rest; a recipe without "
        "a number gets the most that fits into a GPU by the count",
        examples=[{"default": 32}],
    )  # fmt: skip
    activation_checkpointing: Literal["auto"] | bool = Field(
        "auto", description="compute activations twice to save memory; auto: off, unless so little fits without it "
        "that a pass is not worth its fixed cost",
    )  # fmt: skip
    compile: Literal["auto"] | bool = Field(
        "auto",
        description="torch.compile the layers; auto: on an NVIDIA GPU, where Triton and a C compiler are",
    )
    deterministic: bool = Field(
        False, description="only kernels that give the same bits every time, slower on a GPU: for a resumed run with "
        "the very bits of an undisturbed one",
    )  # fmt: skip
    gradient_reduction: Literal["fp32", "bf16"] = Field(
        "fp32", description="in which numbers gradients are averaged over processes; bf16 halves what is sent, for GPUs "
        "without NVLink",
    )  # fmt: skip
    watchdog_minutes: float = Field(
        15.0, gt=0, description="a process without progress for that long is named, and the run ends; longer "
        "than a step may take, compilation included",
        examples=[30],
    )  # fmt: skip
    env: dict[str, str] = Field(
        {}, description="environment variables of the workers", examples=[{"NCCL_DEBUG": "INFO"}]
    )

    @field_validator("nodes")
    @classmethod
    def _check_nodes(cls, nodes: int | str) -> int | str:
        least, _, most = str(nodes).partition(":")
        numbers = [least, most or least]
        if not all(number.isdecimal() for number in numbers) or not 1 <= int(least) <= int(numbers[1]):
            raise ValueError(
                message(
                    "settings.odd-nodes", "a number of nodes, or LEAST:MOST, like 1:4 (given: {nodes!r})",
                    nodes=nodes,
                )
            )  # fmt: skip
        return int(least) if int(least) == int(numbers[1]) else nodes

    @field_validator("from_machine", mode="before")
    @classmethod
    def _check_is_bool(cls, value: object) -> object:
        if not isinstance(value, bool):  # pydantic would take "yes", whoever fills the file in does not
            raise ValueError(message("settings.odd-bool", "true or false (given: {value!r})", value=value))
        return value

    @field_validator("deepspeed")
    @classmethod
    def _resolve_path(cls, path: str) -> str:
        return str(Path(path).expanduser().resolve()) if path else ""

    @field_validator("rendezvous")
    @classmethod
    def _check_rendezvous(cls, rendezvous: str) -> str:
        if rendezvous and not re.fullmatch(_HOST_AND_PORT, rendezvous):
            raise ValueError(
                message(
                    "settings.odd-rendezvous", "not HOST:PORT, like node1:29500 (given: {address!r})",
                    address=rendezvous,
                )
            )  # fmt: skip
        return rendezvous

    @model_validator(mode="after")
    def _check_from_machine(self) -> Profile:
        if self.from_machine and self.device != "cuda":  # else it would train on the CPU, beside the GPUs
            raise ValueError(
                message(
                    "settings.from-machine-without-gpu", "from_machine is for NVIDIA GPUs: add gpu: NVIDIA"
                )
            )
        return self

    @property
    def device(self) -> Literal["cuda", "mps", "cpu"]:
        """What the model runs on."""
        if self.gpu == "Apple":
            return "mps"
        return "cuda" if self.gpu else "cpu"

    @property
    def node_range(self) -> range:
        """The numbers of nodes that may train."""
        least, _, most = str(self.nodes).partition(":")
        return range(int(least), int(most or least) + 1)

    @property
    def max_nodes(self) -> int:
        """Machines side by side; of a range, the most."""
        return self.node_range[-1]

    @property
    def processes(self) -> int:
        """Training processes in all; of a range of nodes, the most."""
        return self.max_nodes * self.processes_per_node

    def on_nodes(self, nodes: int) -> Profile:
        """The profile with one number of a range of nodes."""
        return self.model_copy(update={"nodes": nodes})

    @property
    def checkpoints_activations(self) -> bool:
        """Are activations computed twice? Not as long as nobody has counted (`plan/micro_batch.py`)."""
        return self.activation_checkpointing is True

    def stated_micro_batch(self, recipe: str) -> int | None:
        """The number that the profile has for a recipe; None: it follows from the memory of a device."""
        return self.micro_batch.get(recipe, self.micro_batch.get("default"))

    def max_micro_batch(self, recipe: str) -> int:
        """Examples one process can hold at once for a recipe; few where the profile has no number."""
        return self.stated_micro_batch(recipe) or CAREFUL_MICRO_BATCH
