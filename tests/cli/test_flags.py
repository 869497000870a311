"""The command line is small and closed: a new flag is a decision, not an accident."""

from __future__ import annotations

import re

from tests.conftest import Kovqa

FLAGS = {
    "demo": "--output -o --pictures --seed --set --table",
    "index": (
        "--root --output -o --images --min-count --answers --column --language --check --check-images --show --as-upstream "
        "--tokenizer --allow-left-out --allow-outside --json --quiet -q"
    ),
    "download": (
        "--list --output -o --from --files --accept-licence --allow-hash-mismatch --keep-archive --json --quiet -q"
    ),
    "train": (
        "--recipe -r --profile -p --data --tokenizer --output -o --resume --change --random-init --micro-batch --set "
        "--dry-run -n --allow-left-out --check --trust-run --trust-remote-code "
        "--json --quiet -q"
    ),
    "sweep": (
        "--recipe -r --profile -p --grid --seeds --data --tokenizer --output -o --random-init --micro-batch --set "
        "--allow-left-out --trust-remote-code --dry-run -n --json --quiet -q"
    ),
    "predict": (
        "--image -i --question --speech --speech-model --speak --speak-model --input "
        "--images --column --kind --output -o --model --profile -p --batch --precision "
        "--load --top-k --answers --choices --choices-by --calibrate --unknown-below --temperature --seed "
        "--instruction --max-new-tokens --server --concurrency --fill-unreadable --allow-left-out "
        "--allow-outside --trust-remote-code --force --json --quiet -q"
    ),
    "caption": (
        "--image -i --input --images --column --output -o --model --beams --batch --precision --load --instruction "
        "--max-new-tokens --server --concurrency --fill-unreadable --allow-left-out --allow-outside "
        "--trust-remote-code --force --json --quiet -q"
    ),
    "chat": "--image -i --model --answers --temperature --seed --precision --load --trust-remote-code --json --quiet -q",
    "vote": "--output -o --by --json --quiet -q",
    "explain": "--image -i --question --output -o --method --model --load --trust-remote-code --json --quiet -q",
    "export": (
        "--output -o --as-upstream --verify --onnx --licence --scores --push --public --yes -y "
        "--trust-remote-code --json --quiet -q"
    ),
    "import": "--labels --tokenizer --base --vision --output -o --set --json --quiet -q",
    "submit": (
        "--predictions --sample --output -o --fill --column --answers-as --upload --team --memo --force --json --quiet -q"
    ),
    "evaluate": (
        "--index --kind --normalise --protocol --tokens --against --report --log --images --examples --judge --judge-model "
        "--judge-prompt --json --quiet -q"
    ),
    "benchmark": (
        "--sets --model --data --output -o --profile -p --batch --precision --load --choices-by --calibrate --judge "
        "--judge-model --judge-prompt --server --concurrency --allow-left-out "
        "--trust-remote-code --force --json --quiet -q"
    ),
    "view": (
        "--predictions --images --kind --normalise --protocol --host --port --open --no-cache --json --quiet -q"
    ),
    "serve": (
        "--model --host --port --max-wait-ms --batch --queue --max-body --timeout --allow-url --speech-model --precision "
        "--load --trust-remote-code --json --quiet -q"
    ),
    "tokenizer train": "--output -o --vocab-size --coverage --sentences --column --allow-left-out --json --quiet -q",
    "tokenizer encode": "--tokenizer --pieces --json",
    "tokenizer inspect": "--text --json --quiet -q",
    "tokenizer extend": "--with --output -o --pieces --allow-left-out --json --quiet -q",
    "profiles": "--json --quiet -q",
    "profiles show": "--json",
    "profiles new": "--from --set --force --json --quiet -q",
    "profiles detect": "--output -o --force --json --quiet -q",
    "profiles schema": "--json",
    "models": "--gpu-memory --json --quiet -q",
    "recipes": "--json --quiet -q",
    "recipes show": "--json",
    "recipes new": "--from --set --force --json --quiet -q",
    "recipes schema": "--json",
    "doctor": "--deep --json --quiet -q",
    "runs": "--root --json --quiet -q",
    "runs list": "--root --json --quiet -q",
    "runs show": "--root --json --quiet -q",
    "runs diff": "--root --json --quiet -q",
    "runs verify": "--root --json --quiet -q",
    "runs rm": "--root --yes -y --dry-run -n --json --quiet -q",
    "runs rerun": "--root --output -o --force --trust-run --trust-remote-code --dry-run -n --json --quiet -q",
}


def test_flags_are_a_closed_list(kovqa: Kovqa) -> None:
    for name, flags in FLAGS.items():
        shown = kovqa(*name.split(), "--help", COLUMNS="400").stdout
        options = shown.split("Options:")[1].split("Commands:")[0]
        found = {
            flag
            for line in options.splitlines()
            for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.strip().split("  ")[0])
        }
        assert found - {"--help", "-h"} == set(flags.split()), name


def test_commands_are_a_closed_list(kovqa: Kovqa) -> None:
    shown = kovqa("--help").stdout.split("Commands:")[1]
    found = {line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line[2] != " "}
    assert found == {name.split()[0] for name in FLAGS}
