"""Libraries are tried in other processes; torch is held beside the GPUs and the driver."""

from __future__ import annotations

import json

import pytest
from kovqa_core.machine.hardware import visible_gpus
from kovqa_core.machine.library_checks import (
    CHECKED_PACKAGES,
    TORCH_FACTS_SCRIPT,
    CheckedPackage,
    ImportAttempt,
    import_script,
    installed_finding,
    installed_torch_finding,
    package_finding,
    torch_finding,
    try_import,
)
from kovqa_core.messages import message

_USE = message("machine.use-torch", "models and training")


def test_a_working_torch_is_ok() -> None:
    finding = torch_finding(try_import(TORCH_FACTS_SCRIPT), "2.x")
    assert finding.state == ("warning" if visible_gpus() else "ok")
    assert finding.what.startswith("2.x, sees")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("built_for", "gpus", "state", "what"),
    [
        (None, 0, "warning", "built for CPUs alone, but this machine has 2 × NVIDIA A100"),
        ("12.8", 0, "warning", "built for CUDA 12.8, sees 0 of 2 GPUs; the driver is 470.1"),
        ("12.8", 2, "ok", "sees 2 GPUs"),
    ],
)
def test_wheel_against_driver(built_for: str | None, gpus: int, state: str, what: str) -> None:
    facts = {"built_for": built_for, "gpus": gpus, "mps": False}
    finding = torch_finding(ImportAttempt(json.dumps(facts), ""), "2.9")
    assert finding.state == state
    assert what in finding.what


@pytest.mark.usefixtures("two_gpus")
def test_the_warning_of_cuda_is_the_reason() -> None:
    facts = json.dumps({"built_for": "12.8", "gpus": 0, "mps": False})
    finding = torch_finding(ImportAttempt(facts, "", "x.py:1: UserWarning: CUDA initialization: old"), "2.9")
    assert finding.what.endswith("the driver is 470.1 (CUDA initialization: old)")


@pytest.mark.usefixtures("two_gpus")
def test_a_wheel_for_cpus_is_seen_without_an_import() -> None:
    assert "built for CPUs alone" in installed_torch_finding("2.13.0+cpu").what
    assert installed_torch_finding("2.13.0+cu128").state == "ok"


def test_what_is_not_installed_is_found_without_an_import() -> None:
    package = CheckedPackage("nonesuch", "nonesuch.inner", _USE)
    assert installed_finding(package, {"nonesuch": "not installed"}).state == "missing"
    assert installed_finding(package, {"nonesuch": "1.0"}).state == "missing"  # metadata without its folder
    assert installed_finding(CheckedPackage("numpy", "numpy", _USE), {"numpy": "2.0"}).what == "2.0"


def test_an_import_that_hangs_or_crashes_is_only_a_finding() -> None:
    assert "not imported within 0.3 s" in try_import("import time; time.sleep(60)", 0.3).error
    assert "signal 6" in try_import("import os; os.abort()").error
    attempt = try_import("import nonesuch")
    assert attempt.error == "ModuleNotFoundError: No module named 'nonesuch'"
    package = CheckedPackage("nonesuch", "nonesuch", _USE, needed=False)
    assert package_finding(package, attempt, {"nonesuch": "not installed"}).state == "none"


def test_operators_of_another_torch_are_done_without() -> None:
    package = next(package for package in CHECKED_PACKAGES if package.name == "torchvision")
    error = "RuntimeError: operator torchvision::nms does not exist"
    assert package_finding(package, ImportAttempt("", error), {"torchvision": "0.28"}).state == "ok"


@pytest.mark.parametrize("name", ["timm", "numpy"])
def test_a_package_is_imported_as_the_engine_imports_it(name: str) -> None:
    package = next(package for package in CHECKED_PACKAGES if package.name == name)
    assert try_import(import_script(package)).error == ""
