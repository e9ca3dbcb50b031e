"""The model card: what a student was made from and how, under which terms, and how to use it.

It stands in the student's folder as README.md, with the front matter that model hubs read. Its results are filled in
when the student is exported, since it is written before anything is measured.
"""

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distill.cards.document import Data, Section, Table, flat, pairs
from distill.cards.markdown import BEGIN, END, between, section
from distill.core.files import file_hash, write_text
from distill.params.schema import Params
from distill.students.runs import Run

Row = dict[str, Any]
NAME = "README.md"
UNMEASURED = "Not in this copy: `python -m tools.export FOLDER` makes one with the results."
ROLES = {
    "init": "the student before training",
    "sft": "the student trained by cross-entropy on the teacher's texts",
    "distilled": "the student trained by the loss under test",
}
# licenses that model hubs know under the same name, in lower case; https://huggingface.co/docs/hub/repositories-licenses
HUB_LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "gemma")
UNSTATED = "not stated: find out before you share the student"
MEASURED = {
    "accuracy": "Accuracy",
    "perplexity": "Perplexity",
    "top1_agreement": "Top-1 agreement",
    "rouge_l": "ROUGE-L",
}


@dataclass(frozen=True)
class Lineage:
    """All that a student comes from.

    `teachers` are the entries of params.yaml with name, model and license; `student`, `schedule` and `settings` (empty
    for init) its sections; `rows` what it learnt from, `hashes` SHA-256 by file; `labels` what it chooses from, if any;
    `targets` names the teacher whose probabilities it learnt from, if there is one.
    """

    variant: str
    teachers: Sequence[Mapping[str, Any]]
    student: Mapping[str, Any]
    schedule: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int
    rows: Sequence[Row]
    hashes: Mapping[str, str]
    labels: Sequence[str] | None
    targets: str | None

    @property
    def base(self) -> str:
        """The model that the student's weights come from, as params.yaml names it."""
        if self.student["source"] == "pretrained":
            return self.student["model"]
        return next(teacher["model"] for teacher in self.teachers if teacher["name"] == self.student["teacher"])

    @property
    def sources(self) -> list[list[str]]:
        """Name, part and license of each model that the student has weights, answers or else probabilities of."""
        known = {teacher["name"]: teacher for teacher in self.teachers}
        wrote = Counter(row["teacher"] for row in self.rows) if self.variant != "init" else Counter()
        found = []
        if self.student["source"] == "pretrained":
            found.append([self.student["model"], "its weights", UNSTATED])
        for name in dict.fromkeys([*known, *sorted(wrote)]):
            cut = self.student["source"] == "pruned" and self.student["teacher"] == name
            parts = ["its weights"] * cut + [f"{wrote[name]:,} answers"] * (name in wrote)
            parts = parts or ["its probabilities"] * (name == self.targets)
            if parts:
                teacher = known.get(name, {"model": "not in params.yaml", "license": None})
                found.append([f"{name}: {teacher['model']}", " and ".join(parts), teacher["license"] or UNSTATED])
        return found

    @property
    def license(self) -> str | None:
        """The license that a hub knows and that all sources share, else None: then a person must decide."""
        licenses = {license.lower() for _, _, license in self.sources}
        return licenses.pop() if len(licenses) == 1 and licenses <= set(HUB_LICENSES) else None


def lineage(params: Params, run: Run, rows: Sequence[Row], files: Sequence[Path]) -> Lineage:
    """The lineage of a student that is trained on the rows; `files` are named by their hashes."""
    pinned = {one.model: one.sha256 for one in params.teachers if one.kind == "local" and one.sha256 is not None}
    train, learns = params.train, run.variant == "distilled" and params.train.distilled.loss.needs_teacher
    settings = {"init": {}, "sft": {"loss": {"kind": "cross_entropy"}}, "distilled": train.distilled.model_dump()}
    excluded = {"distilled", "report_to", "compile"} | {name for name, value in train if value is None}
    return Lineage(
        variant=run.variant,
        teachers=[teacher.model_dump() for teacher in params.teachers],
        student=params.init.model_dump(),
        schedule=train.model_dump(exclude=excluded),
        settings=settings[run.variant],
        seed=params.data_seed if run.seed is None else run.seed,
        rows=rows,
        hashes={str(path): file_hash(path) for path in files} | pinned,
        labels=params.generate.class_labels,
        targets=params.targets.teacher if params.targets is not None and learns else None,
    )


def sections(lineage: Lineage, report: Mapping[str, Any]) -> list[Section]:
    """The card's sections; `report` is the run's record in metrics/train."""
    choices = {"seed": lineage.seed} | flat(dict(lineage.student), "student")
    if lineage.settings:
        choices |= flat(dict(lineage.schedule), "train") | flat(dict(lineage.settings), "distilled")
    adapter = [_adapted(lineage.schedule["adapter"])] if lineage.schedule.get("adapter") else []
    per = "token of the teacher" if lineage.labels is None else "answer, within the set of labels,"
    made = {name: value for name, value in report.items() if name not in ("variant", "seed")}
    return [
        Section("Made from", [
            Table(["source", "what the student has of it", "license and terms"],
                  [list(map(Data, source)) for source in lineage.sources], "lll"),
            "The student is derived from these sources: their licenses and terms apply to it too.",
        ]),
        Section("How it was made", [
            pairs(["choice", "value"], choices),
            pairs(["result of training", "value"], made),
            f"`validation_loss` is in nats per {per} on held-out topics, `response_tokens` counts every epoch.",
            *adapter,
        ]),
        Section("Files by hash", [
            pairs(["file", "SHA-256"], lineage.hashes),
        ]),
        Section("Limits", [
            "The student answers questions of the kind that its training data asks; it is no general assistant. It has "
            "its teachers' mistakes and adds its own: what it says is not checked by anything.",
        ]),
    ]  # fmt: skip


def _adapted(adapter: Mapping[str, Any]) -> str:
    """One paragraph on a student of which an adapter alone was trained."""
    if adapter["quantization"] is None:
        return "Only a low-rank adapter of the weights was trained (LoRA); it is merged into them."
    return (
        f"Only a low-rank adapter was trained, beside weights in 4 bits (QLoRA, {adapter['quantization']}); it is "
        "merged into the weights as they were before: `merged_validation_loss` is of the result."
    )


def usage(messages: Sequence[Mapping[str, str]]) -> str:
    """Python that loads the student from a folder and asks it the messages, and a chat in a terminal.

    The chat has the system prompt of the messages where that is a single line.
    """
    system = next((message["content"] for message in messages if message["role"] == "system"), "")
    flag = f" --system-prompt {shlex.quote(system)}" if len(system.splitlines()) == 1 else ""
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file is
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = {json.dumps(list(messages), ensure_ascii=False)}  # of the kind that it was trained on
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
output = model.generate(**prompt, max_new_tokens=64, do_sample=False)
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))
```

```
transformers serve . --port 8000  # needs: pip install "transformers[serving]"
transformers chat . http://localhost:8000/v1 do_sample=False{flag}  # in another shell
```"""


def label_usage(messages: Sequence[Mapping[str, str]], labels: Sequence[str]) -> str:
    """Python that loads the student from a folder and has it choose a label for the messages."""
    return f"""It has learnt to choose one of a set of labels by their likelihood, and not to write.

```python
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file is
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = {json.dumps(list(messages), ensure_ascii=False)}  # of the kind that it was trained on
labels = {json.dumps(list(labels), ensure_ascii=False)}
prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
before = tokenizer(prompt, add_special_tokens=False).input_ids
scores = []
for label in labels:
    whole = tokenizer.apply_chat_template([*messages, {{"role": "assistant", "content": label}}], tokenize=False)
    answer = tokenizer(whole[len(prompt):].rstrip(), add_special_tokens=False).input_ids  # with the end of the turn
    with torch.inference_mode():
        log_probs = model(torch.tensor([before + answer])).logits[0, len(before) - 1 : -1].float().log_softmax(-1)
    scores.append(log_probs.gather(1, torch.tensor(answer)[:, None]).sum())
probabilities = dict(zip(labels, torch.stack(scores).softmax(0).tolist()))
print(probabilities)
```"""


def front_matter(lineage: Lineage) -> ModelCardData:
    """What a hub reads: license, library, task, tags, and the hub's name of what the student's weights come from."""
    return ModelCardData(
        license=lineage.license or "other",
        license_name=None if lineage.license else "see-the-sources-below",
        base_model=lineage.base if re.fullmatch(r"[\w.-]+/[\w.-]+", lineage.base) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["distillation", lineage.variant],
    )


def card(lineage: Lineage, report: Mapping[str, Any]) -> str:
    """The card as a file, its results not yet filled in."""
    messages = min((row["messages"] for row in lineage.rows), key=lambda one: (len(json.dumps(one)), json.dumps(one)))
    use = usage(messages) if lineage.labels is None else label_usage(messages, lineage.labels)
    parts = [
        f"---\n{front_matter(lineage).to_yaml()}\n---",
        f"# A distilled model: {lineage.variant}",
        f"This is {ROLES[lineage.variant]}, with {report['parameters']:,} parameters.",
        f"## Results\n\n{BEGIN}\n{UNMEASURED}\n{END}",
        f"## Use\n\n{use}",
        *map(section, sections(lineage, report)),
    ]
    return "\n\n".join(parts) + "\n"


def write(folder: Path, lineage: Lineage, report: Mapping[str, Any]) -> None:
    """Writes the card into the folder of a student, with the hash of its weights."""
    weights = {path.name: file_hash(path) for path in sorted(folder.glob("*.safetensors"))}
    write_text(folder / NAME, card(replace(lineage, hashes=weights | dict(lineage.hashes)), report))


def with_results(text: str, variant: str, row: Mapping[str, float], block: str) -> str:
    """The card with its results: `block` for people, and `row`, the variant's part of metrics.json, for hubs."""
    result = ModelCard(between(text, block, NAME))
    data: Any = result.data
    data.model_name = variant
    data.eval_results = [
        EvalResult(
            task_type="text-generation", dataset_type="held-out-topics", dataset_name="The teacher's held-out answers",
            metric_type=name, metric_name=title, metric_value=row[name],
        )
        for name, title in MEASURED.items()
    ]  # fmt: skip
    return str(result)
