"""Files are whole or as before, a folder has one holder, and TOML keeps what it is given."""

import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pyro_vae.core.files import LOCK, PARTIAL, locked, replacing, write_whole
from pyro_vae.core.system import check_file, in_a_sentence
from pyro_vae.core.toml import read_config, write_toml
from pyro_vae.data.tables import read_file


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "x.txt"
    write_whole(path, "first \N{GRINNING FACE}")
    assert path.read_bytes() == "first \N{GRINNING FACE}".encode()

    def fail():
        with replacing(path) as new:
            assert new.suffix == ".txt" and new.parent == tmp_path
            new.write_text("sec")
            assert path.read_text("utf-8").startswith("first")  # what others read meanwhile
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert path.read_text("utf-8").startswith("first") and names(tmp_path) == ["x.txt"]
    with path.open("rb") as reader:  # one that has it open goes on with the old one
        write_whole(path, b"\x00\xff")
        assert reader.read().startswith(b"first")
    assert path.read_bytes() == b"\x00\xff" and names(tmp_path) == ["x.txt"]


def test_a_new_file_has_the_permissions_that_the_user_gives(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_what_a_killed_writer_leaves_is_removed_by_the_next_holder(tmp_path):
    code = (
        "import os, sys; from pyro_vae.core.files import replacing\n"
        "with replacing(sys.argv[1]) as new: new.write_text('half'); os.kill(os.getpid(), 9)"
    )
    (tmp_path / "x.txt").write_text("whole")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.txt")])
    left, kept = names(tmp_path)
    assert left.startswith(PARTIAL) and (tmp_path / kept).read_text() == "whole"
    with locked(tmp_path):
        pass
    assert names(tmp_path) == ["x.txt"]


HOLDER = (
    "import sys; from pyro_vae.core.files import locked\n"
    "with locked(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
)


def test_a_folder_has_one_holder_until_its_process_ends_however_it_ends(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    for end in ("kill", "close"):
        with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], **pipes) as other:
            assert other.stdout.readline() == "held\n"
            expected = rf"{tmp_path} is in use by process {other.pid} on .* since \d{{4}}-"
            with pytest.raises(ValueError, match=expected), locked(tmp_path):
                pass
            other.kill() if end == "kill" else other.stdin.close()
            other.wait(timeout=60)
        assert (tmp_path / LOCK).exists() == (end == "kill")
        with locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / LOCK).read_text()
    assert names(tmp_path) == []


def test_toml_keeps_any_text_and_numbers_that_are_not_finite(tmp_path):
    texts = ["\N{GRINNING FACE}.npy", 'a "b" \\ \t\n\r\x00\x1f\x7f\x85\u2028', "näme", "'''", "nan"]
    values = dict(zip("abcde", texts, strict=True))
    values |= {"list": [1, 2.5e-30, -float("inf")], "true": True, "number": -0.0}
    write_toml(tmp_path / "x.toml", values | {"left_out": None}, "a comment")
    assert read_config(tmp_path / "x.toml") == values
    write_toml(tmp_path / "x.toml", {"nan": float("nan")}, "a comment")
    assert (tmp_path / "x.toml").read_text().splitlines()[1] == "nan = nan"


def loop(path):
    path.symlink_to(path)


REFUSED = {  # what makes a path, what is said of reading it, and of writing to it
    "absent": (lambda p: None, "there is no file ", None),
    "broken link": (lambda p: p.symlink_to("gone"), "is a link to gone, which is not there", None),
    "loop": (loop, "is a link that leads back to itself", "is a link that leads back to itself"),
    "folder": (lambda p: p.mkdir(), "is a folder: name a file in it", "is a folder: name a file"),
    "pipe": (os.mkfifo, "is no file but a device, a pipe or a socket: give a file", None),
    "long": (None, "the name is longer than the system", "the name is longer than the system"),
    "below a file": (False, "is a file, and no folder", "is a file, and no folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_system_refuses_is_said_with_what_to_do(case, tmp_path):
    make, reading, writing = REFUSED[case]
    path = tmp_path / ("x.toml" if make else "n" * 300 if make is None else "file/x.toml")
    (tmp_path / "file").touch()
    if make:
        make(path)
    for read in (check_file, read_config):
        with pytest.raises(ValueError, match=re.escape(reading)) as refused:
            read(path)
        assert "Errno" not in str(refused.value) and "written" not in str(refused.value)
    if writing:
        with pytest.raises(OSError) as refused:
            path.open("w")
        assert writing in in_a_sentence(refused.value)


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="the system refuses root nothing")
def test_what_one_may_not_read_or_write_is_said(tmp_path):
    path = tmp_path / "x.toml"
    path.touch(0o200)
    with pytest.raises(ValueError, match=r"you may not read this file: chmod u\+r it"):
        read_config(path)
    path.chmod(0o400)
    with pytest.raises(PermissionError) as refused:
        path.open("w")
    assert "you may not write to this file" in in_a_sentence(refused.value)
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as refused:
        write_whole(tmp_path / "new", "")
    assert f"{tmp_path / 'new'}: you may not write to {tmp_path}" in in_a_sentence(refused.value)
    tmp_path.chmod(0o600)
    with pytest.raises(ValueError, match="you may not enter the folder"):
        read_config(path)
    tmp_path.chmod(0o700)


def test_a_folder_may_be_called_as_the_users_home_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("~").mkdir()
    frame = pd.DataFrame({"a": [0.5, 1.5], "b": ["u", "v"]})
    with replacing(Path("~", "x.csv")) as new:
        frame.to_csv(new, index=False)
    assert names(tmp_path / "~") == ["x.csv"]
    pd.testing.assert_frame_equal(read_file(Path("~", "x.csv")), frame, check_dtype=False)


def test_what_stands_where_a_folder_is_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("gone")
    for name, words in {"file": "is there, and is no folder", "link": "leads nowhere"}.items():
        with pytest.raises(FileExistsError) as refused:
            (tmp_path / name).mkdir(exist_ok=True)
        assert words in in_a_sentence(refused.value)
    with pytest.raises(NotADirectoryError) as refused:
        write_whole(tmp_path / "file" / "x", "")
    assert in_a_sentence(refused.value).startswith(f"{tmp_path / 'file' / 'x'}: ")


def test_a_folder_leaves_what_another_writes_below_it(tmp_path):
    for name in (".", "a", "a/b", "busy"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{PARTIAL}1").touch()
    (tmp_path / "busy" / LOCK).touch()
    with locked(tmp_path):
        assert names(tmp_path) == [LOCK, "a", "busy"] and names(tmp_path / "a") == ["b"]
        assert names(tmp_path / "busy") == [LOCK, f"{PARTIAL}1"]
        assert names(tmp_path / "a" / "b") == [f"{PARTIAL}1"]


def test_a_full_disk_is_said_of_the_file_that_was_to_be_written(tmp_path):
    def fill(words):
        with replacing(tmp_path / "x.npy"):
            raise words

    for words in (OSError("1000 requested and 12 written"), OSError(errno.ENOSPC, "No space")):
        with pytest.raises(OSError) as refused:
            fill(words)
        said = in_a_sentence(refused.value)
        assert said.startswith(f"{tmp_path / 'x.npy'} is not written, the disk is full")
