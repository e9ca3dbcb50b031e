"""The commands of the README's tour, run in a clone with the tiny experiment."""

import re
import shutil
import subprocess

import pytest
import tiny


def block(text: str, heading: str) -> str:
    """The first block of commands below a heading of a Markdown text."""
    _, _, below = text.partition(f"\n## {heading}\n")
    found = re.search(r"^```\n(.*?)^```$", below, re.DOTALL | re.MULTILINE)
    assert found, f"no commands below {heading!r}"
    return found[1]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the pipeline of the fixture may be in it
def test_the_tour_works_as_written(committed, tmp_path):
    folder, colleague = tmp_path / "clone", tmp_path / "colleague"
    shutil.copytree(committed, folder)
    tiny.run(folder, "git", "branch", "--move", "--force", "main")
    commands = block((folder / "README.md").read_text(), "Change one thing")
    done = subprocess.run(
        ["bash", "-xeuo", "pipefail", "-c", commands], cwd=folder, env=tiny.environment(), capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    ran = [line for line in done.stdout.splitlines() if line.startswith("> python -m stages.")]
    assert [line.split()[3].removeprefix("stages.") for line in ran] == ["train", "evaluate", "plot"]
    assert "train.distilled.loss" in done.stdout
    assert re.search(r"^perplexity .*(better|worse|within noise)$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("Data and pipelines are up to date.\n")
    assert tiny.run(colleague, "git", "branch", "--show-current").stdout == "reverse-kl\n"
    models = sorted(path.relative_to(folder) for path in (folder / "models").rglob("*.safetensors"))
    assert len(models) >= 3
    assert all((colleague / path).read_bytes() == (folder / path).read_bytes() for path in models)
