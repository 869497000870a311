"""Variables of processes that use a GPU: kovqa's where the user has set none."""

from __future__ import annotations

from kovqa_core.launch.launchers import find_launcher
from kovqa_core.launch.plan import worker_environment
from kovqa_core.machine.gpu_environment import gpu_environment
from kovqa_core.settings.profile import Profile


def test_what_the_user_has_set_stays() -> None:
    assert gpu_environment({}) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "TORCH_CUDNN_SDPA_DEPRIORITIZED": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    own = {"PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync", "TORCH_CUDNN_SDPA_DEPRIORITIZED": "0"}
    kept = gpu_environment(own)
    assert kept["TORCH_CUDNN_SDPA_DEPRIORITIZED"] == "0"
    assert "PYTORCH_CUDA_ALLOC_CONF" not in kept  # the other name of the same


def test_a_launch_has_them_on_gpus_alone() -> None:
    def variables(gpu: str, *, deterministic: bool, **env: str) -> dict[str, str]:
        profile = Profile(name="mine", gpu=gpu, deterministic=deterministic, env=env)
        return worker_environment(profile, find_launcher(profile), 8)

    assert variables("A100", deterministic=True)["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "CUBLAS_WORKSPACE_CONFIG" not in variables("A100", deterministic=False)
    assert "PYTORCH_CUDA_ALLOC_CONF" not in variables("", deterministic=False)
    own = variables("A100", deterministic=False, PYTORCH_ALLOC_CONF="max_split_size_mb:64")
    assert "PYTORCH_CUDA_ALLOC_CONF" not in own
