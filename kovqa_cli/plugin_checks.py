"""Does each plug-in work? Tried in a process of its own: whatever one breaks, breaks there."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import TYPE_CHECKING

from kovqa_core.errors import KovqaError
from kovqa_core.messages import Message, message
from kovqa_core.plugins import Plugin, PluginKind, clash_warnings, find_plugin, find_plugins, kind_text

if TYPE_CHECKING:
    from kovqa_core.machine.finding import DoctorFinding
    from kovqa_core.machine.library_checks import ImportAttempt

_SCRIPT = "from kovqa_cli.plugin_checks import try_plugin; try_plugin({kind!r}, {name!r}, deep={deep})"


def plugin_findings(own_commands: Collection[str], *, deep: bool) -> list[DoctorFinding]:
    """What `kovqa doctor` says of plug-ins: a line each, and of what hides another or cannot be read.

    Args:
        own_commands: names of kovqa's own commands.
        deep: load all of a model family, which imports torch; else what planning reads of it.
    """
    from concurrent.futures import ThreadPoolExecutor

    from kovqa_core.machine.library_checks import try_import
    from kovqa_core.process_pool import usable_cpu_count

    found = find_plugins()
    own = _own_names(own_commands)
    plugins = [plugin for plugin in found.plugins.values() if plugin.name not in own[plugin.kind]]
    hidden = [warning for kind, names in own.items() for warning in clash_warnings(kind, names)]
    scripts = [_SCRIPT.format(kind=plugin.kind, name=plugin.name, deep=deep) for plugin in plugins]
    with ThreadPoolExecutor(min(4, usable_cpu_count())) as pool:  # threads that wait for processes
        attempts = list(pool.map(try_import, scripts))
    findings = [_plugin_finding(plugin, attempt) for plugin, attempt in zip(plugins, attempts, strict=True)]
    return [*findings, *(_problem_finding(problem) for problem in (*hidden, *found.problems))]


def _own_names(commands: Collection[str]) -> dict[PluginKind, Collection[str]]:
    """Names of kovqa's own, which plug-ins cannot have."""
    from kovqa_core.index.sources import DATA_SOURCES
    from kovqa_core.launch.launchers import LAUNCHERS
    from kovqa_core.models import FAMILIES

    return {"source": DATA_SOURCES, "family": FAMILIES, "launcher": LAUNCHERS, "command": commands}


def _plugin_finding(plugin: Plugin, attempt: ImportAttempt) -> DoctorFinding:
    from kovqa_core.machine.finding import DoctorFinding

    name = message("machine.plugin-name", "plug-in {name}", name=plugin.name)
    what = message(
        "machine.plugin",
        "{kind} of {distribution} {version}",
        kind=kind_text(plugin.kind),
        distribution=plugin.distribution,
        version=plugin.version,
    )
    if not attempt.error:
        return DoctorFinding(name, "ok", what)
    problem = message("machine.broken-plugin", "{plugin}: {reason}", plugin=what, reason=attempt.error)
    do = message(
        "machine.broken-plugin.hint",
        "ask those who made it, or pip uninstall {distribution}",
        distribution=plugin.distribution,
    )
    return DoctorFinding(name, "warning", problem, do)


def _problem_finding(problem: Message) -> DoctorFinding:
    from kovqa_core.machine.finding import DoctorFinding

    distribution = problem.fields["distribution"]
    do = message("machine.plugin-problem.hint", "pip uninstall {distribution}", distribution=distribution)
    return DoctorFinding(message("machine.plugins", "plug-ins"), "warning", problem, do)


def try_plugin(kind: PluginKind, name: str, *, deep: bool) -> None:
    """Load a plug-in in this process; ends it with 1 and the reason where that does not work."""
    try:
        _load(kind, name, deep=deep)
    except KovqaError as error:
        fields = getattr(error.message, "fields", {})
        sys.exit(str(fields.get("reason", error.message)))


def _load(kind: PluginKind, name: str, *, deep: bool) -> None:
    if kind == "source":
        from kovqa_core.index.sources import find_source

        find_source(name)
    elif kind == "launcher":
        from kovqa_core.launch.launchers import find_launcher
        from kovqa_core.settings.profile import Profile

        find_launcher(Profile(name=name, launcher=name))
    elif kind == "family":
        from kovqa_core.models import FAMILY_PARTS, family_part

        for part in FAMILY_PARTS:
            if deep or part != "FAMILY":
                family_part(name, part)
    else:
        from kovqa_cli.plugin_commands import load_command

        plugin = find_plugin(kind, name)
        assert plugin is not None
        load_command(plugin)
