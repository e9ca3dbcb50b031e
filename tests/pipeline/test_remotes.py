"""Data and models shared through real remotes: one pushes, another pulls and runs nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
import tiny
import yaml
from servers import Remote

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("remotes")]
KINDS = {"ssh": servers.ssh, "s3": servers.s3, "http": servers.http, "webdav": servers.webdav}


def section(settings: dict[str, str]) -> str:
    return "['remote \"team\"']\n" + "".join(f"    {name} = {value}\n" for name, value in settings.items())


def clone(source: Path, folder: Path, secrets: dict[str, str]) -> Path:
    """A clone with the secrets of a colleague."""
    tiny.run(source, "git", "clone", "-q", str(source), str(folder))
    (folder / ".dvc/config.local").write_text(section(secrets))
    return folder


def with_remote(committed: Path, folder: Path, remote: Remote) -> Path:
    """The committed results in a repository with this default remote."""
    shutil.copytree(committed, folder)
    (folder / ".dvc/config").write_text(
        "[core]\n    analytics = false\n    check_update = false\n    remote = team\n"
        + section({"url": remote.url} | remote.options)
    )
    (folder / ".dvc/config.local").write_text(section(remote.secrets))
    tiny.run(folder, "git", "commit", "-qam", "A remote for the team")
    return folder


@pytest.fixture(scope="module")
def pushed(committed, tmp_path_factory) -> Iterator[Path]:
    """A repository whose data are pushed to a folder."""
    place = tmp_path_factory.mktemp("folder")
    with servers.folder(place) as remote:
        source = with_remote(committed, place / "first", remote)
        tiny.run(source, "dvc", "push")
        yield source


def files(folder: Path) -> dict[str, bytes]:
    """The files that DVC keeps out of git."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("data", "models")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_clone_pulls_and_has_nothing_to_run(committed, tmp_path, kind):
    if kind == "ssh" and not servers.SSHD:
        pytest.skip("sshd is missing: apt-get install openssh-server")
    with KINDS[kind](tmp_path / "server") as remote:
        source = with_remote(committed, tmp_path / "first", remote)
        tiny.run(source, "dvc", "push")
        second = clone(source, tmp_path / "second", remote.wrong)
        refused = tiny.run(second, "dvc", "pull", check=False)
        assert refused.returncode != 0
        assert not (second / "models/distilled-7").exists()
        (second / ".dvc/config.local").write_text(section(remote.secrets))
        tiny.run(second, "dvc", "pull")
        assert "Data and pipelines are up to date" in tiny.run(second, "dvc", "status").stdout
    assert files(second) == files(committed)
    for secret in remote.secrets.values():
        assert tiny.run(second, "git", "grep", "-F", secret, check=False).returncode == 1


def test_a_folder_is_a_remote_too(pushed, committed, tmp_path):
    second = clone(pushed, tmp_path / "second", {})
    tiny.run(second, "dvc", "pull")
    assert "Data and pipelines are up to date" in tiny.run(second, "dvc", "status").stdout
    assert files(second) == files(committed)


def test_only_what_a_stage_needs_is_pulled(pushed, tmp_path):
    second = clone(pushed, tmp_path / "second", {})
    params = yaml.safe_load((second / "params.yaml").read_text())
    params["clean"]["max_words"] -= 1
    (second / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    done = tiny.run(second, "dvc", "repro", "--pull", "--allow-missing", "clean")
    assert "python -m stages.clean" in done.stdout
    assert "stages.generate" not in done.stdout
    found = {str(path.parent.relative_to(second)) for path in (second / "data").rglob("*.jsonl")}
    assert found == {"data/prompts", "data/raw", "data/clean"}
    assert not list((second / "models").glob("*/*"))


def test_a_colleagues_run_comes_from_a_shared_run_cache(committed, tmp_path):
    """As a folder: `dvc push --run-cache` leaves out the files that git keeps.

    Weight runs again: DVC keeps no run of a stage with an uncached output that is neither metric nor plot (in
    dvc/stage/__init__.py `no_cache_outs`), and weight writes the data card, which git keeps.
    """
    shutil.copytree(committed / ".dvc/cache", tmp_path / "cache")
    second = tmp_path / "second"
    tiny.run(committed, "git", "clone", "-q", str(committed), str(second))
    tiny.run(second, "dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
    (second / "dvc.lock").unlink()
    done = tiny.run(second, "dvc", "repro", "sft", "distilled")
    ran = {line for line in done.stdout.splitlines() if line.startswith("> python")}
    assert ran == {"> python -m stages.weight"}
    made = {path: data for path, data in files(committed).items() if not path.startswith("data/evaluated/")}
    assert files(second) == made


def test_responses_are_imported_into_another_repository(pushed, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    tiny.run(other, "git", "init", "-q")
    tiny.run(other, "dvc", "init", "-q")
    tiny.run(other, "dvc", "import", "-q", f"file://{pushed}", "data/raw/responses.jsonl", "-o", "answers.jsonl")
    assert (other / "answers.jsonl").read_bytes() == (pushed / "data/raw/responses.jsonl").read_bytes()
    source = yaml.safe_load((other / "answers.jsonl.dvc").read_text())["deps"][0]["repo"]
    assert source["rev_lock"] == tiny.run(pushed, "git", "rev-parse", "HEAD").stdout.strip()
