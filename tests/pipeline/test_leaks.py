"""What cleaning drops because another row or a held-out text says the same."""

import json

import pytest
from lm_eval.tasks import TaskManager
from raw_rows import LETTERS, TOPIC, asked, cleaned, corpus, raw, reasons, with_params

from distill.cleaning import benchmark_texts
from distill.core.errors import UserError


def test_the_first_of_equal_responses_in_a_split_stays():
    rows = [
        *corpus(),
        raw(TOPIC["train"], "They live in large families.", "home"),
        raw(TOPIC["train"], "they  live in large FAMILIES.", "life"),
    ]
    assert reasons(rows) == {rows[-1]["id"]: ("duplicate", rows[-2]["id"])}


def test_near_duplicates_begin_at_the_threshold():
    base = LETTERS[:12]
    rows = [
        *corpus(),
        raw(TOPIC["train"], " ".join(base), "a"),
        raw(TOPIC["train"], " ".join([*base[:11], "omega"]), "b"),
    ]
    similarity = 9 / 11
    assert reasons(rows, with_params(minhash_threshold=similarity)) == {
        rows[-1]["id"]: ("near_duplicate", rows[-2]["id"])
    }
    assert reasons(rows, with_params(minhash_threshold=similarity + 0.01)) == {}


@pytest.mark.parametrize(("holder", "loser"), [("test", "train"), ("test", "validation"), ("validation", "train")])
def test_duplicates_across_splits_leave_the_held_out_one(holder, loser):
    rows = [
        *corpus(),
        raw(TOPIC[loser], "They live in large families.", "a"),
        raw(TOPIC[holder], "They live in large families!", "z"),
    ]
    assert reasons(rows) == {rows[-2]["id"]: ("near_duplicate", rows[-1]["id"])}


def test_a_dropped_row_is_no_duplicate_of_another():
    held_out = " ".join(LETTERS)
    rows = [
        *corpus(),
        raw(TOPIC["test"], "Greek letters are old.", "a", **asked(held_out)),
        raw(TOPIC["train"], "They live in large families.", "b", **asked(held_out)),
        raw(TOPIC["train"], "They live in large families.", "c"),
    ]
    assert list(reasons(rows)) == [rows[-2]["id"]]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("place", ["prompt", "response"])
def test_training_shares_no_13_words_with_a_held_out_prompt(split, place):
    held_out = "Please " + " ".join(LETTERS[:13])
    leak = "So: " + ", ".join(LETTERS[:13]).upper() + "!"
    row = raw(TOPIC[split], "They live in large families.", "leak", **asked(leak))
    if place == "response":
        row = raw(TOPIC[split], leak, "leak")
    rows = [*corpus(), raw(TOPIC["test"], "Greek letters are old.", "order", **asked(held_out)), row]
    verdict = ("contaminated", f"{TOPIC['test']}/order: {' '.join(LETTERS[:13])}")
    assert reasons(rows) == ({} if split == "test" else {row["id"]: verdict})


def test_twelve_shared_words_are_no_contamination():
    rows = [
        *corpus(),
        raw(TOPIC["test"], "Greek letters are old.", "order", **asked(" ".join(LETTERS[:13]))),
        raw(TOPIC["train"], "They live in large families.", "leak", **asked(" ".join(LETTERS[:12]))),
    ]
    assert reasons(rows) == {}


def test_a_short_held_out_prompt_counts_in_full():
    short = "Why do they sing?"
    rows = [
        *corpus(),
        raw(TOPIC["test"], "Greek letters are old.", "order", **asked(short)),
        raw(TOPIC["train"], "They live in large families.", "same", **asked("why do they sing")),
        raw(TOPIC["train"], "They sing for company.", "longer", **asked("Tell me: why do they sing?")),
    ]
    assert reasons(rows) == {rows[-2]["id"]: ("contaminated", f"{TOPIC['test']}/order: why do they sing")}


def test_training_has_no_string_of_an_evaluation_file(tmp_path):
    file = tmp_path / "exam.jsonl"
    file.write_text(json.dumps({"id": 1, "doc": {"choices": ["no", " ".join(LETTERS[:13])]}}) + "\n")
    rows = [*corpus(), raw(TOPIC["train"], " ".join(LETTERS), "leak"), raw(TOPIC["test"], " ".join(LETTERS[1:]), "x")]
    clean = with_params(evaluation_texts=[str(file)], minhash_threshold=1.0)
    assert reasons(rows, clean) == {rows[-2]["id"]: ("contaminated", f"{file}: {' '.join(LETTERS[:13])}")}
    with pytest.raises(UserError, match="evaluation_texts"):
        reasons(rows, with_params(evaluation_texts=[str(tmp_path / "none.jsonl")]))


def test_a_dropped_row_names_the_text_that_it_matches():
    rows = [
        *corpus(),
        raw(TOPIC["test"], "Greek letters are old.", "order", **asked(" ".join(LETTERS[:13]))),
        raw(TOPIC["train"], "They live in large families.", "a"),
        raw(TOPIC["train"], "they live in LARGE families.", "b"),
        raw(TOPIC["train"], "They live in large families!", "c"),
        raw(TOPIC["train"], " ".join(LETTERS), "d"),
        raw(TOPIC["train"], "", "e"),
    ]
    dropped = {row["reason"]: row["matching_text"] for row in cleaned(rows)[1]["dropped"]}
    assert dropped == {
        "duplicate": "They live in large families.",
        "near_duplicate": "They live in large families.",
        "contaminated": " ".join(LETTERS[:13]),
        "empty": None,
    }


TASK = """
task: our_exam
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list:
  - metric: acc
"""


@pytest.fixture
def exam(tmp_path, monkeypatch):
    """An lm-eval task on a local file."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    # without the index of lm-eval's own tasks, which takes seconds
    monkeypatch.setattr(benchmark_texts, "_task_manager", lambda: TaskManager(include_defaults=False))
    data = tmp_path / "exam.jsonl"
    data.write_text(json.dumps({"question": "Greek?", "choices": ["no", " ".join(LETTERS[:13])]}) + "\n")
    task = tmp_path / "exam.yaml"
    task.write_text(TASK.format(data=data))
    return task


def test_training_has_no_document_of_an_evaluation_task(exam):
    rows = [*corpus(), raw(TOPIC["train"], " ".join(LETTERS), "leak"), raw(TOPIC["test"], " ".join(LETTERS[1:]), "x")]
    clean = with_params(evaluation_tasks=[str(exam)], minhash_threshold=1.0)
    assert reasons(rows, clean) == {rows[-2]["id"]: ("contaminated", f"{exam}: {' '.join(LETTERS[:13])}")}


def test_a_task_without_documents_is_an_error_for_the_user(exam):
    (exam.parent / "exam.jsonl").unlink()
    for name in (str(exam), "no_such_task"):
        with pytest.raises(UserError, match=r"clean\.evaluation_tasks: the texts of '.*' cannot be loaded"):
            reasons(corpus(), with_params(evaluation_tasks=[name]))
