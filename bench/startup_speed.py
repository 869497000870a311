"""What the `kovqa` command costs before it does anything: CPU seconds of help and of completion.

    python bench/startup_speed.py [--rounds 9] [--against CHECKOUT] [--json]

Every round starts, one after the other and in changing order, an empty Python, `kovqa --help` and
`kovqa train --help` in English and in Korean (by the locale, by KOVQA_LANG), and what a shell asks for completion;
`--against` a second checkout's too. Measured is user + system time of the child (`wait4`), which other work on the
machine disturbs less than seconds on the wall do. A Python file that was never loaded is compiled first: one round
before the first is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
KOVQA = [sys.executable, "-P", "-m", "kovqa_cli"]
COMPLETION = "import sys; sys.argv = ['kovqa']; from kovqa_cli.main import run; run()"
ENGLISH = {"KOVQA_LANG": "en"}
# What is started -> argv, and what is added to the environment.
WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "kovqa --help": ([*KOVQA, "--help"], ENGLISH),
    "kovqa train --help": ([*KOVQA, "train", "--help"], ENGLISH),
    "kovqa --help, Korean": (
        [*KOVQA, "--help"],
        {"LANG": "ko_KR.UTF-8", "LC_ALL": "", "LC_MESSAGES": "", "LANGUAGE": ""},
    ),
    "kovqa train --help, Korean": ([*KOVQA, "train", "--help"], {"KOVQA_LANG": "ko"}),
    "completion": (
        [sys.executable, "-P", "-c", COMPLETION],
        {"_KOVQA_COMPLETE": "complete_bash", "COMP_WORDS": "kovqa train --profile a1", "COMP_CWORD": "3"},
    ),
}
EMPTY = "empty Python"


def cpu_seconds(argv: list[str], env: dict[str, str]) -> float:
    """User and system seconds of a command; ends this program where the command fails."""
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen must not wait for it again
    if process.returncode:
        sys.exit(f"{argv[-3:]} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def environment(checkout: Path, added: dict[str, str]) -> dict[str, str]:
    """The environment with a checkout's own code in front of whatever is installed."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KOVQA_")}
    return {**kept, "PYTHONPATH": f"{checkout / 'core'}{os.pathsep}{checkout}", **added}


def measure(checkouts: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every start, by what was started; the first round is left out.

    Args:
        checkouts: label (empty for the only one) -> folder.
        rounds: how many are counted.
    """
    starts = {EMPTY: ([sys.executable, "-P", "-c", "pass"], dict(os.environ))}
    for label, checkout in checkouts.items():
        for name, (argv, added) in WAYS.items():
            starts[f"{name}{label}"] = (argv, environment(checkout, added))
    seconds: dict[str, list[float]] = {name: [] for name in starts}
    for number in range(rounds + 1):
        for name in sorted(starts, reverse=bool(number % 2)):
            used = cpu_seconds(*starts[name])
            if number:
                seconds[name].append(used)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="a second checkout, measured side by side"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    checkouts = {"": HERE}
    if args.against:
        if not (args.against / "kovqa_cli").is_dir():
            sys.exit(f"{args.against} is not a checkout: it has no folder kovqa_cli")
        checkouts = {", against": args.against.resolve(), ", here": HERE}
    seconds = measure(checkouts, max(2, args.rounds))
    quartiles = {
        name: statistics.quantiles(values, n=4, method="inclusive") for name, values in seconds.items()
    }
    if args.json:
        print(
            json.dumps(
                {name: dict(zip(("q1", "median", "q3"), q, strict=True)) for name, q in quartiles.items()}
            )
        )
        return
    empty = quartiles[EMPTY][1]
    print("| CPU ms of | median | quartiles | above empty |\n|---|---:|---:|---:|")
    for name, (low, middle, high) in quartiles.items():
        print(
            f"| {name} | {1e3 * middle:.0f} | {1e3 * low:.0f}–{1e3 * high:.0f} | {1e3 * (middle - empty):.0f} |"
        )
    if args.against:
        for name in WAYS:
            change = quartiles[f"{name}, here"][1] / quartiles[f"{name}, against"][1] - 1
            print(f"{name}: {100 * change:+.1f} %")


if __name__ == "__main__":
    main()
