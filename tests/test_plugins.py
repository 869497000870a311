"""Plug-ins of distributions that are installed, as docs/plugins.md shows them; and of folders that must not have any."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kovqa_core import plugins
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import MachineError, ModelError, SettingsError
from kovqa_core.index.sources import find_source, source_names
from kovqa_core.launch.launchers import find_launcher, launcher_names, launcher_starts_here
from kovqa_core.models import family_names, family_part
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.family import read_model_folder
from kovqa_core.plan.training import plan_training
from kovqa_core.plugins import clash_warnings, find_plugin, find_plugins, load_plugin, plugin_names
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.settings.profile import Profile
from kovqa_core.train.loop import run_training

from kovqa_cli import completion
from tests.conftest import Small, clean_env
from tests.docs.pages import DOCS, sections

EVIL = "from pathlib import Path\nPath({mark!r}).write_text('loaded')\nraise SystemExit('evil')\n"


def install(site: Path, project: str, modules: dict[str, str], **metadata: str) -> Path:
    """What `pip install` leaves of a project in a site folder; the folder with its metadata."""
    fields = tomllib.loads(project)
    name, version = fields["project"]["name"], fields["project"]["version"]
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        line
        for group, points in fields["project"]["entry-points"].items()
        for line in (f"[{group}]", *(f"{point} = {value}" for point, value in points.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for file, text in {**modules, **{f"{folder.name}/{key}": text for key, text in metadata.items()}}.items():
        (site / file).write_text(text, "utf-8")
    return folder


def project(name: str, group: str, point: str, version: str = "0.1") -> str:
    return f'[project]\nname = "{name}"\nversion = "{version}"\n[project.entry-points."kovqa.{group}"]\n{point}\n'


def install_examples(site: Path) -> None:
    """The four plug-ins of the page, word for word."""
    site.mkdir()
    for section in sections(DOCS / "plugins.md"):
        if blocks := dict(section.blocks()):
            file = blocks["python"].partition("\n")[0].removeprefix("# ")
            install(site, blocks["toml"], {file: blocks["python"]})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A site folder of this process's Python, with nothing in it yet."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(plugins, "site_folders", lambda: [folder])
    find_plugins.cache_clear()
    _forget_plugins()  # of a test of the pages, too
    yield folder
    find_plugins.cache_clear()
    _forget_plugins()


def _forget_plugins() -> None:
    for name in [name for name in sys.modules if name.startswith("kovqa_")]:
        if not name.startswith(("kovqa_core", "kovqa_cli")):
            del sys.modules[name]


@pytest.fixture
def examples(site: Path) -> Path:
    install_examples(site)
    return site


def test_the_examples_join_the_tables(examples: Path) -> None:
    assert {kind: plugin_names(kind) for kind in plugins.GROUPS} == {
        "source": ["lines"], "family": ["colour"], "launcher": ["plain"], "command": ["rows"]
    }  # fmt: skip
    assert (source_names()[-1], family_names()[-1], launcher_names()[-1]) == ("lines", "colour", "plain")
    assert completion.complete_source("li") == ["lines"]
    assert not [
        name for name in sys.modules if name in ("kovqa_lines", "kovqa_colour", "kovqa_plain", "kovqa_rows")
    ]
    with pytest.raises(SettingsError, match="unknown data set 'line'; did you mean lines"):
        find_source("line")


def test_a_family_and_a_launcher_of_plugins_train(examples: Path, small: Small, tmp_path: Path) -> None:
    recipe = tmp_path / "colour.yaml"
    recipe.write_text("family: colour\nmodel: {scale: 2.0}\noptim: {steps: 2, global_batch: 8, lr: 1e-2}\n")
    sets = ["profile.threads=1", "profile.loader_workers=0", "profile.launcher=plain"]
    planned = plan_training(
        str(recipe), "cpu", sets=sets, flags={"data.index": str(small.index)}, folder=tmp_path / "run",
        resume=False, dry_run=False,
    )  # fmt: skip
    assert "torch.distributed.run" not in " ".join(planned.launch.argv)
    planned.run.folder.mkdir()
    run_training(planned.run, RankInfo(0, 0, 1), torch.device("cpu"), lambda: False)
    step = find_model_folder(tmp_path / "run", "vqa")
    model, _ = read_model_folder(step, "vqa")
    assert model.config.scale == 2.0
    find_plugins.cache_clear()
    for file in examples.glob("kovqa_colour*/*"):  # taken away, the model says what it lacks
        file.unlink()
    with pytest.raises(ModelError, match="no model family colour here") as failed:
        read_checkpoint_info(step)
    assert "install the plug-in that brings it" in failed.value.hint
    refused = [*sets[:-1], "profile.launcher=plane"]
    with pytest.raises(SettingsError, match="unknown launcher 'plane'; did you mean plain"):
        plan_training(
            "tiny", "cpu", sets=refused, flags={"data.index": str(small.index)}, folder=tmp_path / "no",
            resume=False, dry_run=True,
        )  # fmt: skip


def test_a_broken_plugin_is_one_line_that_names_its_distribution(site: Path) -> None:
    install(
        site, project("kovqa-one", "sources", 'one = "kovqa_one"'), {"kovqa_one.py": "import missing_thing\n"}
    )
    install(
        site, project("kovqa-two", "sources", 'two = "kovqa_two"'), {"kovqa_two.py": "SPLIT_METHOD = 1\n"}
    )
    install(site, project("kovqa-three", "families", 'three = "kovqa_three"'), {"kovqa_three.py": "1 / 0\n"})
    install(site, project("kovqa-four", "launchers", 'four = "kovqa_four:gone"'), {"kovqa_four.py": "\n"})
    install(site, project("kovqa-five", "commands", 'five = "kovqa_five"'), {})
    for call, reason in [
        (lambda: find_source("one"), "ModuleNotFoundError: No module named 'missing_thing'"),
        (lambda: find_source("two"), "MIN_ANSWER_COUNT, ACCEPTED_OPTIONS"),
        (lambda: family_part("three", "ModelConfig"), "ZeroDivisionError"),
        (lambda: find_launcher(Profile(name="x", launcher="four")), "AttributeError"),
        (lambda: load_plugin(find_plugin("command", "five")), "ModuleNotFoundError: kovqa_five"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(MachineError, match=reason) as failed:
            call()
        assert "of kovqa-" in str(failed.value.message)
        assert "\n" not in failed.value.message
    assert not launcher_starts_here(Profile(name="x", launcher="four"))  # listed beside others
    assert find_source("table")


def test_names_of_kovqa_win_and_a_clash_is_said(site: Path) -> None:
    broken = {"kovqa_a.py": "1 / 0\n"}
    install(site, project("kovqa-a", "sources", 'table = "kovqa_a"\nmine = "kovqa_a"'), broken)
    install(site, project("kovqa-b", "sources", 'mine = "kovqa_b"'), {})
    (site / "kovqa_c-0.1.dist-info").mkdir()
    (site / "kovqa_c-0.1.dist-info" / "entry_points.txt").write_text("[kovqa.sources]\nodd = kovqa_c\n")
    assert find_source("table").SPLIT_METHOD
    assert clash_warnings("source", ["table"]) == [
        "plug-in table of kovqa-a 0.1 is not used: kovqa has a data set of that name"
    ]
    taken, unreadable = find_plugins().problems
    assert taken == "plug-in mine of kovqa-b 0.1 is not used: kovqa-a 0.1 has a data set of that name"
    assert unreadable.startswith("plug-ins of kovqa_c cannot be read: ")
    assert source_names().count("table") == 1


def test_a_module_counts_where_its_distribution_is_installed(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of `pip install -e`, whose metadata names the project."""
    elsewhere = tmp_path / "project"
    elsewhere.mkdir()
    (elsewhere / "kovqa_here.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    folder = install(site, project("kovqa-here", "commands", 'here = "kovqa_here:VALUE"'), {})
    plugin = find_plugin("command", "here")
    assert plugin is not None
    with pytest.raises(
        MachineError, match=r"its module kovqa_here was found in .*project, where that distribution"
    ):
        load_plugin(plugin)
    for info, loads in (({"editable": False}, False), ({"editable": True}, True)):
        url = json.dumps({"url": elsewhere.as_uri(), "dir_info": info})
        (folder / "direct_url.json").write_text(url)
        if loads:
            assert load_plugin(plugin) == 1
        else:
            with pytest.raises(MachineError):
                load_plugin(plugin)


# ---------------------------------------------------------------------- a Python of its own


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that has the examples besides all that this one has; of the family the metadata alone."""
    folder = tmp_path_factory.mktemp("환경")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "all.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    install_examples(site / "examples")
    for path in (site / "examples").iterdir():
        path.rename(site / path.name)
    (site / "kovqa_colour.py").unlink()  # would load torch
    install(
        site,
        project("kovqa-bad", "commands", 'train = "kovqa_bad"\nbad = "kovqa_bad"'),
        {"kovqa_bad.py": "1 / 0\n"},
    )
    return folder / "venv" / "bin" / "python"


def run(python: Path, cwd: Path, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
    """kovqa as `python -m` starts it: with the working folder in front of all others."""
    root = str(DOCS.parent)
    found = {"PYTHONPATH": f"{root}/core:{root}", **env}
    return subprocess.run(
        [python, "-m", "kovqa_cli", *map(str, words)],
        cwd=cwd, env=clean_env(**found), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_commands_are_listed_loaded_and_tried(python: Path, small: Small, tmp_path: Path) -> None:
    listed = run(python, tmp_path, "--help")
    assert "Of the plug-in kovqa-rows 0.1." in listed.stdout
    assert listed.stderr == (
        "warning: plug-in train of kovqa-bad 0.1 is not used: kovqa has a command of that name\n"
    )
    counted = run(python, tmp_path, "rows", small.index, "--json")
    assert json.loads(counted.stdout)["train"] > 0
    broken = run(python, tmp_path, "bad")
    assert broken.returncode == 4
    assert broken.stderr.splitlines()[-1].startswith(
        "kovqa: plug-in bad of kovqa-bad 0.1 does not work: ZeroDivisionError"
    )
    report = json.loads(run(python, tmp_path, "doctor", "--json").stdout)
    found = {line["name"]: line for line in report["findings"] if "plug-in" in line["name"]}
    assert {name: line["state"] for name, line in found.items()} == {
        "plug-in lines": "ok", "plug-in colour": "warning", "plug-in plain": "ok", "plug-in rows": "ok",
        "plug-in bad": "warning", "plug-ins": "warning",
    }  # fmt: skip
    assert found["plug-in lines"]["what"] == "data set of kovqa-lines 0.1"
    assert "ZeroDivisionError" in found["plug-in bad"]["what"]


def test_no_folder_brings_a_plugin(python: Path, small: Small, tmp_path: Path) -> None:
    """Neither by metadata in it, nor by a module that has the name of an installed one."""
    hostile, mark = tmp_path / "hostile", tmp_path / "mark"
    hostile.mkdir()
    evil = EVIL.format(mark=str(mark))
    install(
        hostile,
        project("kovqa-evil", "commands", 'evil = "kovqa_evil"'),
        dict.fromkeys(("kovqa_evil.py", "kovqa_rows.py", "kovqa_lines.py", "kovqa_colour.py"), evil),
    )
    root = str(DOCS.parent)
    asked = run(
        python, hostile, "evil", PYTHONPATH=f"{hostile}::{root}/core:{root}"
    )  # an empty part is this folder, too
    assert asked.returncode == 2
    assert asked.stderr.splitlines()[-1].startswith("kovqa: no such command: evil")
    refused = run(python, hostile, "rows", small.index)
    assert refused.returncode == 4
    assert (
        f"its module kovqa_rows was found in {hostile}, where that distribution is not installed"
        in refused.stderr
    )
    assert run(python, hostile, "index", "lines", "--root", hostile).returncode == 4
    assert not mark.exists()


def test_a_start_loads_no_plugin(python: Path, tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['kovqa', *{words!r}]\nfrom kovqa_cli.main import run\ntry: run()\n"
        "finally: sys.stderr.write(' '.join({{'kovqa_core.plugins', 'kovqa_rows', 'kovqa_bad'}} & {{*sys.modules}}))"
    )
    root = str(DOCS.parent)
    for words, loaded in ((["train", "--help"], ""), (["--help"], "kovqa_core.plugins")):
        done = subprocess.run(
            [python, "-P", "-c", script.format(words=words)], cwd=tmp_path, capture_output=True, text=True,
            env=clean_env(PYTHONPATH=f"{root}/core:{root}"), timeout=60, check=True,
        )  # fmt: skip
        assert (done.stderr.splitlines() or [""])[-1] == loaded
