"""The model card: what a student comes from, the terms that follow, and the results that export fills in."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from huggingface_hub import ModelCard

from distill.cards import markdown, model_card
from distill.params.loading import check_params
from distill.students.runs import Run

REPORT = {"variant": "distilled", "source": "tiny", "loss": "forward_kl", "steps": 3, "parameters": 1234}
LOCAL = tiny.params()["teachers"][0] | {"license": "Apache-2.0", "sha256": "0" * 64}


def row(teacher: str = "tiny", system: str | None = "Be brief.", prompt: str = "Why?") -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    return {"teacher": teacher, "messages": [*messages, {"role": "user", "content": prompt}], "response": "So."}


ROWS = (row(),)


def lineage(rows: Any = ROWS, variant: str = "distilled", files: Any = (), **changes: Any) -> model_card.Lineage:
    params = check_params(tiny.params(**({"teachers": [LOCAL]} | changes)))
    return model_card.lineage(params, Run(variant, None if variant == "init" else 7), rows, files)


def test_a_trained_student_has_its_teachers_weights_and_answers_and_licence():
    found = lineage([row(), row()])
    assert found.sources == [["tiny: teacher", "its weights and 2 answers", "Apache-2.0"]]
    assert found.license == "apache-2.0"
    assert lineage(variant="init").sources == [["tiny: teacher", "its weights", "Apache-2.0"]]
    assert found.hashes == {"teacher": "0" * 64}


def test_a_licence_is_given_only_where_every_source_has_the_same():
    other = LOCAL | {"name": "other", "model": "another", "license": "MIT"}
    assert lineage([row()], teachers=[LOCAL, other]).license == "apache-2.0"
    assert lineage([row(), row("other")], teachers=[LOCAL, other]).license is None
    assert lineage([row(), row("gone")]).license is None
    assert lineage([row(), row("gone")]).sources[1] == ["gone: not in params.yaml", "1 answers", model_card.UNSTATED]
    assert lineage(teachers=[LOCAL | {"license": "Our own terms"}]).license is None
    assert lineage(teachers=[LOCAL | {"license": None}]).license is None
    matter = ModelCard(model_card.card(lineage(teachers=[LOCAL | {"license": None}]), REPORT)).data.to_dict()
    assert (matter["license"], matter["license_name"]) == ("other", "see-the-sources-below")


def test_a_pretrained_student_is_named_and_its_licence_left_to_a_person():
    student = {"source": "pretrained", "model": "some-org/some-model", "revision": None, "adapter": None}
    found = lineage(train__student=student)
    assert found.sources == [
        ["some-org/some-model", "its weights", model_card.UNSTATED],
        ["tiny: teacher", "1 answers", "Apache-2.0"],
    ]
    assert found.license is None
    assert model_card.front_matter(found).base_model == "some-org/some-model"
    assert model_card.front_matter(lineage()).base_model is None


def test_an_adapter_is_named_by_the_card_of_the_student_that_it_made():
    adapter = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": ["q_proj"], "quantization": "nf4"}
    student = {"source": "pretrained", "model": "m", "revision": None, "adapter": adapter}
    card = model_card.card(lineage(train__student=student), REPORT)
    assert "| student.adapter.rank | 4 |" in card
    assert "in 4 bits (QLoRA, nf4)" in card
    plain = model_card.card(lineage(train__student=student | {"adapter": None}), REPORT)
    assert "low-rank" not in plain
    assert "adapter" not in model_card.card(lineage(train__student=student, variant="init"), REPORT)


def test_the_card_shows_data_as_it_is_and_its_example_is_python():
    text = "<!-- table:begin --> | **x** ```\n---\n\" ' <script>"
    card = model_card.card(lineage([row(system=text, prompt="longer than that " * 9), row(system=text)],
                                   teachers=[LOCAL | {"license": text}]), REPORT)  # fmt: skip
    assert card.count("<!-- table:begin -->") == card.count(markdown.BEGIN) == 2  # its own, and inside a string
    assert "&lt;script&gt;" in card
    code = re.search(r"```python\n(.*?)\n```\n", card, re.DOTALL)
    assert code is not None
    compile(code[1], "card", "exec")
    line = next(line for line in code[1].splitlines() if line.startswith("messages"))
    assert eval(line.partition("=")[2].partition("  #")[0]) == row(system=text)["messages"]


def test_results_stand_in_the_text_and_in_the_front_matter_and_nothing_else_changes():
    before = model_card.card(lineage(), REPORT)
    row_of_metrics = {"accuracy": 0.9, "perplexity": 3.5, "top1_agreement": 0.8, "rouge_l": 0.6, "bytes": 7}
    after = model_card.with_results(before, "distilled", row_of_metrics, "| the | table |")
    data = ModelCard(after).data
    assert {one.metric_type: one.metric_value for one in data.eval_results} == {
        "accuracy": 0.9, "perplexity": 3.5, "top1_agreement": 0.8, "rouge_l": 0.6
    }  # fmt: skip
    assert data.license == "apache-2.0"
    assert ModelCard(after).text == ModelCard(before).text.replace(model_card.UNMEASURED, "| the | table |")


def test_the_card_names_the_hash_of_weights_and_data(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "data.jsonl").write_bytes(b"rows")
    model_card.write(tmp_path, lineage(files=[tmp_path / "data.jsonl"]), REPORT)
    card = (tmp_path / "README.md").read_text()
    for content in (b"weights", b"rows"):
        assert hashlib.sha256(content).hexdigest() in card
    assert "| parameters | 1234 |" in card
    assert "schedule.epochs" in card
    assert "schedule.epochs" not in model_card.card(lineage(variant="init"), REPORT)


@pytest.mark.parametrize(
    ("system", "flag"),
    [
        (None, ""),
        ("Two\nlines.", ""),
        ("Be brief.", " --system-prompt 'Be brief.'"),
        ("$(x)", " --system-prompt '$(x)'"),
    ],
)
def test_the_chat_has_the_system_prompt_of_training_and_no_shell_reads_it(system, flag):
    lines = model_card.usage(row(system=system)["messages"]).splitlines()
    chat = next(line for line in lines if line.startswith("transformers chat"))
    assert chat == f"transformers chat . http://localhost:8000/v1 do_sample=False{flag}  # in another shell"
