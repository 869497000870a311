"""kovqa sweep on a real SLURM: one array, whose tasks come back one by one. Training itself is left out."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import SMALL, Small, clean_env, command, sets
from tests.disturbed import until
from tests.tools.mini_slurm import MiniSlurm

# In place of the workers' python: a result; of the last run at first a stop, after which its job comes back.
PYTHON = """#!/bin/bash
folder=$(dirname "${@: -1}")
if [[ $folder == *seed=2 ]] && ! [ -e "$folder/stopped" ]; then
  touch "$folder/stopped"
  echo '{"kind": "Stopped", "message": "", "detail": "", "rank": 0}' > "$folder/error.json"
  exit 75
fi
echo "$SLURM_ARRAY_TASK_ID" >> "$folder/tasks"
cat > "$folder/result.json" <<END
{"task": "vqa", "recipe": "tiny", "steps": 4, "best": "step-000004", "best_score": 0.${folder: -1}, "last_score": 0.1,
 "seconds": 1, "examples_per_second": 1}
END
"""


def test_an_array_trains_what_is_not_done(cluster: MiniSlurm, small: Small, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    profile = [
        "launcher=sbatch",
        f"python='{python}'",
        "slurm={partition: main, time: '10:00', cpus_per_task: 1}",
    ]
    typed = [
        "sweep", "-r", "tiny", "-p", "cpu", "--data", small.index, "--tokenizer", small.tokenizer, "-o", tmp_path / "비교",
        *sets(*SMALL, "optim.steps=4", *(f"profile.{each}" for each in profile)), "--json", "--seeds",
    ]  # fmt: skip

    def sweep(seeds: str) -> dict[str, object]:
        done = cluster.run(
            command([*typed, seeds]),
            env=clean_env(SLURM_CONF=cluster.conf, KOVQA_HOME=str(tmp_path / "home")),
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first = sweep("1,2")
    assert first["queued"] == ["seed=1", "seed=2"]
    again = sweep("1,2,3")
    assert again["queued"] == ["seed=3"]
    log = "\n".join(path.read_text() for path in (tmp_path / "비교" / "logs").glob("*"))
    until(lambda: len(list((tmp_path / "비교").glob("*/result.json"))) == 3, f"three results\n{log}", 120)
    (row,) = sweep("1,2,3")["settings"]  # type: ignore[misc]
    assert row["scores"] == [0.1, 0.2, 0.3]
    assert {path.parent.name: path.read_text() for path in (tmp_path / "비교").glob("*/tasks")} == {
        "seed=1": "0\n", "seed=2": "1\n", "seed=3": "0\n",
    }  # fmt: skip
    job = json.loads((tmp_path / "비교" / "seed=2" / "slurm-job.json").read_text())
    assert job["number"] == f"{first['job']}_1"
