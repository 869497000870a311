"""Variables with which torch uses an NVIDIA GPU as kovqa needs it. Read before torch first touches the GPU."""

from __future__ import annotations

from collections.abc import Mapping

from kovqa_core.machine.nvidia_smi import DEVICE_ORDER_VARIABLE, PCI_ORDER

# Batches differ in length: memory that grows in place leaves no holes between blocks of other sizes. The older of
# its two names, which every torch that kovqa takes reads.
_ALLOCATOR_VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
_GROWING_SEGMENTS = "expandable_segments:True"
# cuDNN's attention builds a plan for every new shape, tens of milliseconds each: after the other kernels.
_CUDNN_ATTENTION_LAST = {"TORCH_CUDNN_SDPA_DEPRIORITIZED": "1"}
# cuBLAS reads it when it starts; Inductor then times no candidates, of which another may win the next time.
_DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TORCHINDUCTOR_DETERMINISTIC": "1"}


def gpu_environment(environ: Mapping[str, str], *, deterministic: bool = False) -> dict[str, str]:
    """The variables for processes that use a GPU, never in the place of what the user has set.

    Args:
        environ: of the user.
        deterministic: are equal bits wanted (`profile.deterministic`)?
    """
    # GPUs in nvidia-smi's order: a number in CUDA_VISIBLE_DEVICES then is the one that people read there.
    wanted = {DEVICE_ORDER_VARIABLE: PCI_ORDER, **_CUDNN_ATTENTION_LAST}
    if not any(environ.get(name) for name in _ALLOCATOR_VARIABLES):
        wanted[_ALLOCATOR_VARIABLES[0]] = _GROWING_SEGMENTS
    if deterministic:
        wanted |= _DETERMINISTIC
    return {name: environ.get(name) or value for name, value in wanted.items()}
