"""Every command block of README and docs runs as it stands, or with what block_marks.yaml puts in its place."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import pytest

from tests.conftest import Kovqa, Small
from tests.docs.block_runner import BlockRunner, plain_lines
from tests.docs.blocks import TypedLine, all_lines, all_marks, substituted
from tests.docs.pages import ROOT
from tests.docs.workspace import link_workspace, make_workspace
from tests.submit.server import TEAM, TOKEN, running
from tests.tools.forked_commands import ForkedCommands

pytestmark = pytest.mark.xdist_group("blocks")  # one workspace

# Sections that begin with less than the whole workspace: they make what lies in it, or unpack it.
BEGIN_WITH: dict[str, tuple[str, ...]] = {
    "Your own images, your own table: ten minutes": (),
    "On Colab, from install to submission": ("drive", "ko.model"),
    "Contests and model families": ("open", "ko.model", "runs"),
}


@pytest.fixture(scope="session")
def workspace(
    small: Small,
    trained: Path,
    tiny_vlm: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    forked_commands: ForkedCommands,
) -> Path:
    """What the names on the pages stand for."""
    folder = tmp_path_factory.mktemp("이름들")

    def kovqa(*words: object) -> None:
        environment = {"KOVQA_HOME": str(folder / "home")}
        done = forked_commands.run(words, folder, environment=environment, seconds=100, inside="")
        assert done.code == 0, done.stderr

    make_workspace(folder, small, trained, tiny_vlm("qwen2_5_vl"), kovqa)
    return folder


def tried_sections() -> Iterator[object]:
    """The lines of each section of level 2 of which one is run; blocks that stand twice are run once."""
    seen: set[tuple[str, ...]] = set()
    for (page, section), group in groupby(all_lines(), lambda line: (line.page, line.section)):
        lines = tuple(group)
        texts = tuple(line.text for line in lines)
        if any(substituted(line) is not None for line in lines) and texts not in seen:
            seen.add(texts)
            yield pytest.param(lines, id=f"{page}: {section}")


@pytest.fixture
def runner(tmp_path: Path, kovqa: Kovqa) -> Iterator[BlockRunner]:
    environment = {
        "KOVQA_HOME": str(tmp_path / "home"),
        "COLAB_DACON_API_TOKEN": TOKEN,
        "DACON_API_TOKEN": TOKEN,
        "CUDA_VISIBLE_DEVICES": "",
    }
    runner = BlockRunner(tmp_path / "폴더", kovqa, environment, {"TEAM": f"'{TEAM}'"})
    with runner.servers:
        yield runner


@pytest.mark.parametrize("lines", [*tried_sections()])
def test_the_blocks_of_a_section_run_in_order(
    lines: tuple[TypedLine, ...], runner: BlockRunner, request: pytest.FixtureRequest
) -> None:
    names = BEGIN_WITH.get(lines[0].section)
    runner.folder.mkdir()
    if names != ():
        link_workspace(request.getfixturevalue("workspace"), runner.folder, names)
    with running() as dacon:
        runner.environment["KOVQA_DACON_ENDPOINT"] = dacon.url
        printed = ""
        for line in lines:
            printed += runner.run(line) or ""
            if line.expected:
                check_output(line, printed)
                printed = ""


def check_output(line: TypedLine, printed: str) -> None:
    """What the page shows is what came, in this order, but for numbers; … stands for what is left out."""
    lines = iter(plain_lines(printed))
    for shown in plain_lines("\n".join(line.expected)):
        if shown != "…":
            assert any(shown == one for one in lines), f"{line.text}: {shown}\nis not in\n{printed}"


def test_every_mark_marks_something() -> None:
    for mark in all_marks():
        lines = [line for line in all_lines() if mark.is_for(line)]
        assert lines, f"{mark.page}, {mark.section}, {mark.of}: no such line"
        for old in mark.replace:
            assert any(old in line.text for line in lines), (
                f"{mark.page}, {mark.section}: {old} is in no line"
            )
        assert mark.by == "" or (ROOT / mark.by).is_file(), mark.by
        assert mark.reason


def test_the_list_of_marks_is_as_they_are() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "list_blocks.py"))["make_page"]()
    assert (ROOT / "docs" / "blocks.md").read_text("utf-8") == made, "python tools/list_blocks.py"


def test_the_demo_on_the_page_is_the_one_that_is_run() -> None:
    """Its lines are not run here: tests/demo runs the demo, which types them itself."""
    from kovqa_core.demo.journey import demo_steps, shell_line

    typed = [line.text for line in all_lines() if line.section == "Try it" and line.text.startswith("kovqa")]
    run = [shell_line(step.arguments) for step in demo_steps(Path("demo"))]
    assert typed[:5] == run[:5]
    # The image is chosen among those that are drawn.
    assert typed[5] == run[5].replace("-i demo/raw/images ", "-i demo/raw/images/장면_05400.png ")
