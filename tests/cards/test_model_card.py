"""The model card: sources and terms of a student, and the results that export fills in."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from huggingface_hub import ModelCard

from distill.cards import model_card
from distill.cards.markdown import marks
from distill.cards.provenance import UNSTATED, Provenance
from distill.cards.provenance import provenance as student_provenance
from distill.cards.usage import text_usage
from distill.params.loading import check_params
from distill.students.runs import Run

RECORD = {"variant": "distilled", "source": "tiny", "loss": "forward_kl", "steps": 3, "parameters": 1234}
LOCAL = tiny.params()["teachers"][0] | {"license": "Apache-2.0", "sha256": "0" * 64}


def row(teacher: str = "tiny", system: str | None = "Be brief.", prompt: str = "Why?") -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    return {"teacher": teacher, "messages": [*messages, {"role": "user", "content": prompt}], "response": "So."}


ROWS = (row(),)


def provenance(rows: Any = ROWS, variant: str = "distilled", files: Any = (), **changes: Any) -> Provenance:
    params = check_params(tiny.params(**({"teachers": [LOCAL]} | changes)))
    return student_provenance(params, Run(variant, None if variant == "init" else 7), rows, files)


def test_a_trained_student_has_its_teachers_license():
    source = provenance([row(), row()])
    assert source.sources == [["tiny: teacher", "its weights and 2 responses", "Apache-2.0"]]
    assert source.license == "apache-2.0"
    assert provenance(variant="init").sources == [["tiny: teacher", "its weights", "Apache-2.0"]]
    assert source.hashes == {"teacher": "0" * 64}


def test_only_a_license_of_all_sources_is_stated():
    other = LOCAL | {"name": "other", "model": "another", "license": "MIT"}
    assert provenance([row()], teachers=[LOCAL, other]).license == "apache-2.0"
    assert provenance([row(), row("other")], teachers=[LOCAL, other]).license is None
    assert provenance([row(), row("gone")]).license is None
    assert provenance([row(), row("gone")]).sources[1] == ["gone: not in params.yaml", "1 responses", UNSTATED]
    assert provenance(teachers=[LOCAL | {"license": "Our own terms"}]).license is None
    assert provenance(teachers=[LOCAL | {"license": None}]).license is None
    matter = ModelCard(model_card.card(provenance(teachers=[LOCAL | {"license": None}]), RECORD)).data.to_dict()
    assert (matter["license"], matter["license_name"]) == ("other", "see-the-sources-below")


def test_the_license_of_a_pretrained_student_is_left_open():
    student = {"source": "pretrained", "model": "some-org/some-model", "revision": None, "license": None}
    source = provenance(init=student)
    assert source.sources == [
        ["some-org/some-model", "its weights", UNSTATED],
        ["tiny: teacher", "1 responses", "Apache-2.0"],
    ]
    assert source.license is None
    assert model_card.front_matter(source).base_model == "some-org/some-model"
    assert model_card.front_matter(provenance()).base_model is None


def test_the_license_of_a_pretrained_student_counts():
    student = {"source": "pretrained", "model": "some-org/some-model", "revision": None, "license": "MIT"}
    assert provenance(init=student).sources[0] == ["some-org/some-model", "its weights", "MIT"]
    assert provenance(init=student).license is None
    assert provenance(init=student | {"license": "Apache-2.0"}).license == "apache-2.0"
    assert "| some-org/some-model | its weights | MIT |" in model_card.card(provenance(init=student), RECORD)


def test_the_card_names_the_source_of_the_prompts():
    prompts = {"source": "dataset", "name": "some/prompts", "config": None, "split": "train", "column": "text"}
    prompts |= {"path": "source.txt", "topic": 9, "revision": "0" * 40, "streaming": False, "limit": None}
    card = model_card.card(provenance(generate__prompts=prompts), RECORD)
    assert "| name | some/prompts |" in card
    assert f"| revision | {'0' * 40} |" in card
    assert "| limit |" not in card


def test_the_card_names_the_adapter_of_its_student():
    adapter = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": ["q_proj"], "quantization": "nf4"}
    student = {"source": "pretrained", "model": "m", "revision": None, "license": None}
    card = model_card.card(provenance(init=student, train__adapter=adapter), RECORD)
    assert "| train.adapter.rank | 4 |" in card
    assert "in 4 bits (QLoRA, nf4)" in card
    plain = model_card.card(provenance(init=student), RECORD)
    assert "low-rank" not in plain
    assert "adapter" not in model_card.card(provenance(init=student, train__adapter=adapter, variant="init"), RECORD)


def test_the_card_shows_data_as_text_and_its_example_is_python():
    text = "<!-- table:begin --> | **x** ```\n---\n\" ' <script>"
    card = model_card.card(provenance([row(system=text, prompt="longer than that " * 9), row(system=text)],
                                   teachers=[LOCAL | {"license": text}]), RECORD)  # fmt: skip
    assert (
        card.count("<!-- table:begin -->") == card.count(marks(model_card.RESULTS)[0]) == 2
    )  # its own, and inside a string
    assert "&lt;script&gt;" in card
    code = re.search(r"```python\n(.*?)\n```\n", card, re.DOTALL)
    assert code is not None
    compile(code[1], "card", "exec")
    line = next(line for line in code[1].splitlines() if line.startswith("messages"))
    assert eval(line.partition("=")[2].partition("  #")[0]) == row(system=text)["messages"]


def test_results_change_only_the_table_and_the_front_matter():
    before = model_card.card(provenance(), RECORD)
    row_of_metrics = {"accuracy": 0.9, "perplexity": 3.5, "top1_agreement": 0.8, "rouge_l": 0.6, "bytes": 7}
    after = model_card.with_results(before, "distilled", row_of_metrics, "| the | table |")
    data = ModelCard(after).data
    assert {one.metric_type: one.metric_value for one in data.eval_results} == {
        "accuracy": 0.9, "perplexity": 3.5, "top1_agreement": 0.8, "rouge_l": 0.6
    }  # fmt: skip
    assert data.license == "apache-2.0"
    assert ModelCard(after).text == ModelCard(before).text.replace(model_card.UNMEASURED, "| the | table |")


def test_the_card_has_the_hashes_of_weights_and_data(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "data.jsonl").write_bytes(b"rows")
    model_card.write(tmp_path, provenance(files=[tmp_path / "data.jsonl"]), RECORD)
    card = (tmp_path / "README.md").read_text()
    for content in (b"weights", b"rows"):
        assert hashlib.sha256(content).hexdigest() in card
    assert "| parameters | 1234 |" in card
    assert "train.optimization." in card
    assert "train.optimization." not in model_card.card(provenance(variant="init"), RECORD)


@pytest.mark.parametrize(
    ("system", "flag"),
    [
        (None, ""),
        ("Two\nlines.", ""),
        ("Be brief.", " --system-prompt 'Be brief.'"),
        ("$(x)", " --system-prompt '$(x)'"),
    ],
)
def test_the_chat_has_the_quoted_system_prompt_of_training(system, flag):
    lines = text_usage(row(system=system)["messages"]).splitlines()
    chat = next(line for line in lines if line.startswith("transformers chat"))
    assert chat == f"transformers chat . http://localhost:8000/v1 do_sample=False{flag}  # in another shell"
