"""Options typed before a subcommand count for it, or are refused by name."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Kovqa


@pytest.mark.parametrize(("group", "name"), [("profile", "cpu"), ("recipe", "tiny")])
def test_json_before_show_prints_json(kovqa: Kovqa, group: str, name: str) -> None:
    before = kovqa(f"{group}s", "--json", "show", name)
    assert json.loads(before.stdout)[group]["name"] == name, before.stderr
    assert kovqa(f"{group}s", "show", name, "--json").stdout == before.stdout
    assert kovqa(f"{group}s", "show", name).stdout.startswith("# ")


def test_json_before_detect_prints_json(kovqa: Kovqa) -> None:
    detected = kovqa("profiles", "--json", "detect")
    assert json.loads(detected.stdout)["profile"]["processes_per_node"] >= 1, detected.stderr


def test_an_option_that_the_subcommand_lacks_is_refused(kovqa: Kovqa) -> None:
    done = kovqa("profiles", "-q", "show", "cpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "profiles show has no option --quiet" in done.stderr


def test_an_option_before_and_behind_counts_behind(kovqa: Kovqa) -> None:
    assert "no runs in b" in kovqa("runs", "--root", "a", "list", "--root", "b").stderr
    assert "no runs in a" in kovqa("runs", "--root", "a", "list").stderr
