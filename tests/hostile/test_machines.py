"""The repository on other people's machines: their settings of git, umask, processes and keys."""

import tiny


def test_a_clone_with_autocrlf_is_byte_for_byte_the_same(tmp_path):
    tiny.run(tmp_path, "git", "clone", "-q", "-c", "core.autocrlf=true", str(tiny.ROOT), "clone")
    assert tiny.run(tmp_path / "clone", "git", "status", "--porcelain").stdout == ""
    lines = tiny.run(tmp_path / "clone", "git", "ls-files", "--eol").stdout.splitlines()
    assert [line for line in lines if "w/crlf" in line or "w/mixed" in line] == []
