"""A student exported by the real command, and its responses behind a real server."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from servers import model_server
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill.cards import markdown
from distill.reporting import main_table

pytestmark = pytest.mark.xdist_group("export")
TRANSFORMERS = str(Path(sys.executable).parent / "transformers")


def export(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return tiny.run(folder, "python", "-m", "tools.export", *arguments, check=check)


@pytest.fixture(scope="module")
def repository(finished, tmp_path_factory) -> Path:
    """The finished repository at another place, with its cache: without it DVC cannot tell what changed."""
    folder = tmp_path_factory.mktemp("export") / "repository"
    return shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("tmp", ".distill"))


@pytest.fixture(scope="module")
def shared(repository) -> Path:
    export(repository, "shared")
    return repository / "shared"


def test_the_folder_has_the_students_files_and_the_main_table(repository, shared):
    own = repository / "models/distilled-7"
    assert sorted(path.name for path in shared.iterdir()) == sorted(path.name for path in own.iterdir())
    for path in own.iterdir():
        assert (path.name == "README.md") != ((shared / path.name).read_bytes() == path.read_bytes())
    metrics = json.loads((repository / "metrics/metrics.json").read_text())
    card = (shared / "README.md").read_text()
    assert markdown.table(main_table.results(metrics)) in card
    assert markdown.table(main_table.goals(metrics)) in card
    values = {one.metric_type: one.metric_value for one in ModelCard(card).data.eval_results}
    assert values["accuracy"] == metrics["distilled"]["accuracy"]


def test_a_baselines_card_has_its_scores_and_no_goals(repository):
    export(repository, "control", "--student", "sft")
    metrics = json.loads((repository / "metrics/metrics.json").read_text())
    card = (repository / "control/README.md").read_text()
    assert markdown.table(main_table.goals(metrics)) not in card
    values = {one.metric_type: one.metric_value for one in ModelCard(card).data.eval_results}
    assert values["perplexity"] == metrics["sft"]["perplexity"]


def test_the_code_of_the_card_runs(shared):
    code = (shared / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    done = tiny.run(shared, sys.executable, "-c", code)
    assert done.stdout.strip()


@pytest.mark.slow
def test_a_server_and_a_chat_respond_as_the_model_does(shared):
    prompt = "What is ants?"
    tokenizer, network = (kind.from_pretrained(shared) for kind in (AutoTokenizer, AutoModelForCausalLM))
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt"
    )
    with torch.no_grad():
        output = network.generate(**inputs, max_new_tokens=8, do_sample=False)
    wanted = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert wanted
    with model_server(
        shared.parent / "log", TRANSFORMERS, "serve", str(shared), "--port", "PORT", "--device", "cpu"
    ) as url:
        settings = json.dumps({"do_sample": False, "max_new_tokens": 8})
        body = {"model": str(shared), "messages": [{"role": "user", "content": prompt}], "generation_config": settings}
        answer = httpx2.post(f"{url}/chat/completions", json=body, timeout=60).json()
        assert answer["choices"][0]["message"]["content"].strip() == wanted
        # offline the chat would refuse even its own server; where an answer is cut it asks whether to go on: no
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
        chat = subprocess.run(
            [TRANSFORMERS, "chat", str(shared), url, "do_sample=False", "max_new_tokens=8"],
            input=f"{prompt}\nn\n!exit\n!exit\n",
            env=environment | {"COLUMNS": "300"}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert chat.returncode == 0, chat.stderr
    assert wanted.split()[0] in chat.stdout.partition("already loaded")[2]


def leave(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("damage", "arguments", "words"),
    [
        (leave, ("models",), "models exists and is not empty"),
        (leave, ("params.yaml",), "params.yaml exists and is not empty"),
        (lambda f: shutil.rmtree(f / "models/distilled-7"), ("new",), "has no README.md"),
        (lambda f: (f / "models/distilled-7/config.json").write_text(""), ("new",), "models/distilled-7 changed since"),
        (
            # trained again and not measured: evaluate depends on the record
            lambda f: (f / "metrics/train/distilled-7.json").write_text(
                (f / "metrics/train/distilled-7.json").read_text() + "\n"),
            ("new",), "metrics/train/distilled-7.json changed since",
        ),
        (leave, ("new", "--seed", "8"), "one of `training_seeds` in params.yaml ([7])"),
        (lambda f: (f / "models/distilled-7/model.safetensors").write_bytes(b""), ("new",), "is not the model that"),
        (lambda f: (f / "metrics/metrics.json").unlink(), ("new",), "it comes from stage evaluate"),
        (
            lambda f: (f / "metrics/metrics.json").write_text((f / "metrics/metrics.json").read_text() + "\n"),
            ("new",), "metrics/metrics.json changed since",
        ),
    ],
)  # fmt: skip
def test_folders_in_use_and_unmeasured_students_are_refused(repository, tmp_path, damage, arguments, words):
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    damage(tmp_path)
    done = export(tmp_path, *arguments, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()
