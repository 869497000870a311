"""What is full is named: a disk, its inodes, a quota, the size of a file; the disk of the output, or another one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kovqa_core import files, storage_limits
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.files import atomic_file, disk_errors
from kovqa_core.storage_limits import storage_error

from tests.conftest import clean_env, left_out

_ON_SMALL_DISKS = """
import os, sys, tempfile
from pathlib import Path
from kovqa_core.errors import MachineError
from kovqa_core.files import atomic_file
from kovqa_core.whole_folder import write_folder

folder = Path(sys.argv[1])
def fill(path, number):
    try:
        with atomic_file(path) as stream: stream.write(b"x" * number)
    except MachineError as error: print(error.exit_code, error.message)
def many(part):
    for number in range(100): (part / f"{number}.txt").touch()
def temporary():
    try:
        with atomic_file(folder / "room" / "t.txt"), open(folder / "tmp" / "spool", "wb") as spool:
            spool.write(b"x" * 9_000_000)
    except MachineError as error: print(error.exit_code, error.message)
fill(folder / "small" / "a.txt", 9_000_000)
try: write_folder(folder / "inodes" / "out", many)
except MachineError as error: print(error.exit_code, error.message)
temporary()
print(sorted(path.name for path in folder.rglob("*") if path.is_file()))
"""


def test_small_disks(tmp_path: Path) -> None:
    """Real file systems: one without bytes, one without inodes, one whose TMPDIR is another, full one."""
    if os.getuid() or not shutil.which("unshare"):
        left_out("needs root and unshare(1)")
    mounts = {"small": "size=2m", "inodes": "size=8m,nr_inodes=20", "tmp": "size=2m", "room": "size=32m"}
    for name in mounts:
        (tmp_path / name).mkdir()
    shell = " && ".join(
        f"mount -t tmpfs -o {options} none '{tmp_path / name}'" for name, options in mounts.items()
    )
    words = ["unshare", "-m", "sh", "-c", f'{shell} && exec "$@"', "sh"]
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        left_out("may not mount here")
    done = subprocess.run(
        [*words, sys.executable, "-c", _ON_SMALL_DISKS, tmp_path], capture_output=True, text=True, timeout=60,
        env=clean_env(PYTHONPATH=os.pathsep.join(filter(None, sys.path)), TMPDIR=str(tmp_path / "tmp")),
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        f"4 disk full while writing {tmp_path / 'small' / 'a.txt'}",
        f"4 {tmp_path / 'inodes'} has no inode left for one more file, with 8 MB free, while writing "
        f"{tmp_path / 'inodes' / 'out'}",
        f"4 {tmp_path / 'tmp'} is full while writing {tmp_path / 'room' / 't.txt'}",
        "['spool']",
    ], done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "quota"),
        (RuntimeError("I/O error: Disk quota exceeded (os error 122)"), "quota"),
        (OSError(errno.EFBIG, "File too large"), "takes no file as large as"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk full while writing"),
        (RuntimeError("[enforce fail at inline_container.cc] . No space left on device"), "disk full while writing"),
    ],
)  # fmt: skip
def test_the_systems_word_is_said_by_name(tmp_path: Path, error: Exception, words: str) -> None:
    with pytest.raises(MachineError) as raised, disk_errors(tmp_path / "a", "step-000100 is still whole"):
        raise error
    assert words in raised.value.message
    assert str(tmp_path) in raised.value.message
    assert raised.value.message.endswith("; step-000100 is still whole")
    assert raised.value.hint


def test_shared_memory_is_named_where_the_disk_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shm"
    shared.mkdir()
    room = os.statvfs(tmp_path)
    full = os.statvfs_result([*room[:3], 0, 0, *room[5:]])
    monkeypatch.setattr(storage_limits, "_SHARED_MEMORY", shared)
    monkeypatch.setattr(storage_limits, "_device", lambda path: 1 if Path(path) == shared else 2)
    monkeypatch.setattr(os, "statvfs", lambda path: full if Path(path) == shared else room)
    error = storage_error(tmp_path / "out" / "a")
    assert error.message == f"{shared} is full while writing {tmp_path / 'out' / 'a'}"
    assert "--shm-size" in error.hint


def test_what_is_full_is_looked_at_before_it_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        files, "storage_error", lambda *_: seen.append(list(tmp_path.iterdir())) or MachineError("full")
    )
    with pytest.raises(MachineError), atomic_file(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert len(seen[0]) == 1
    assert not list(tmp_path.iterdir())


def test_a_home_that_cannot_be_written_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "file" / ".kovqa"
    home.parent.write_text("a home that is a file cannot hold a folder, not even root's")
    monkeypatch.setenv("KOVQA_HOME", str(home))
    with pytest.raises(SettingsError) as raised, atomic_file(home / "profiles" / "x.yaml"):
        pass
    assert "KOVQA_HOME" in raised.value.hint
    with pytest.raises(SettingsError) as raised, atomic_file(tmp_path / "file" / "x.yaml"):
        pass
    assert "KOVQA_HOME" not in raised.value.hint
