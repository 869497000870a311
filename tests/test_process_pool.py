"""A map over processes: results in order, what the tasks count, and what ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, MachineError
from kovqa_core.process_pool import add_to_count, parallel_map
from kovqa_core.progress import Progress

from tests.disturbed import ended, marked_processes, until


def count_and_double(n: int) -> int:
    add_to_count(n)
    return 2 * n


def fail_or_wait(n: int) -> None:
    if n == 0:
        raise DataError("row 7 is empty", "fill it")
    time.sleep(60)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_in_order_and_counts_are_added() -> None:
    reports: list[Progress] = []
    results = parallel_map(
        count_and_double,
        [(n,) for n in (5, 1, 3)],
        stage="doubling",
        unit="numbers",
        on_progress=reports.append,
    )
    assert results == [10, 2, 6]
    assert reports[-1] == Progress("doubling", 9, unit="numbers", fraction=1.0)


POOLS = {
    "map": "import time\nfrom kovqa_core.process_pool import parallel_map\nparallel_map(time.sleep, [(60,)] * 2)",
    "demo": (
        "import time\nfrom kovqa_core.demo import dataset\n"
        "dataset.PARALLEL_FROM, dataset._draw_image = 1, time.sleep\nlist(dataset._draw_images([60] * 100))"
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_a_killed_parent_takes_its_processes_along(name: str, mark: str) -> None:
    variable, value = mark.split("=")
    parent = subprocess.Popen([sys.executable, "-c", POOLS[name]], env={**os.environ, variable: value})
    until(lambda: len(marked_processes(mark)["launcher"]) > 2, "processes of the pool", 30)
    time.sleep(0.5)  # past their imports
    parent.kill()
    parent.wait()
    assert ended(mark, 5)


def test_the_first_failure_stops_the_others() -> None:
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        parallel_map(fail_or_wait, [(n,) for n in range(4)])
    assert (caught.value.message, caught.value.hint) == ("row 7 is empty", "fill it")
    assert time.monotonic() - began < 45


def test_a_killed_process_is_one_clear_error() -> None:
    with pytest.raises(MachineError, match="killed from outside"):
        parallel_map(kill_itself, [()])


def test_modules_of_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    """Processes of a pool are started as `python -c …`, which looks there first: downloaded data may hold a struct.py."""
    data, program = tmp_path / "data", tmp_path / "program.py"
    data.mkdir()
    for module in ("struct", "socket", "tempfile", "random"):
        (data / f"{module}.py").write_text("open('ran', 'w')\n")
    program.write_text(
        "import os, kovqa_cli.entry\n"
        "from kovqa_core.process_pool import parallel_map\n"
        "if __name__ == '__main__':\n    print(parallel_map(os.path.exists, [('struct.py',)]))\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    command = [sys.executable, str(program)]
    done = subprocess.run(command, cwd=data, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "[True]\n"
    assert not (data / "ran").exists()
