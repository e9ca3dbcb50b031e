"""Cleaning: every reason on a literal row, the split by topic, broken input, and the command itself."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_rows import CLEAN, LETTERS, SECTION, SEED, SPLIT, TOPIC, cleaned, corpus, raw, taken, with_params

from distill.core import text
from distill.core.errors import UserError
from stages import clean as stage

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "loop", ["1. " * 40, "They like to dance in the sun. " * 4, "Bumble" * 30 + " is what bees say"]
)
def test_loops_are_repetitive(loop):
    assert stage.quality(raw("bees", loop), with_params(min_words=1, max_words=99))[0] == "repetitive"


@pytest.mark.parametrize(
    ("response", "refused"),
    [
        ("I\u2019M SORRY, but no.", True),
        ("**I'm sorry but** no.", True),
        ("As an AI, I have no opinion.", True),
        ("As an airline pilot, I fly.", False),
        ("Well, as an AI I fly.", False),
        ("I'm sorry", False),
    ],
)
def test_a_refusal_is_told_by_its_first_words(response, refused):
    verdict = stage.quality(raw("bees", response), CLEAN)
    assert (verdict is not None and verdict[0] == "refused") is refused


BAD = [
    ("failed", {"error": {"class": "Timeout", "message": "60 s"}}),
    ("failed", {"finish_reason": "error", "response": ""}),
    ("filtered", {"finish_reason": "content_filter", "response": ""}),
    ("truncated", {"finish_reason": "length", "response": ""}),
    ("empty", {"response": " \n"}),
    ("refused", {"response": "As an AI"}),
    ("too_short", {"response": "Yes, indeed!"}),
    ("too_long", {"response": "so " * 41}),
    ("repetitive", {"response": "1. " * 20}),
]


@pytest.mark.parametrize(("reason", "changes"), BAD)
def test_the_first_reason_that_fits_is_given(reason, changes):
    verdict = stage.quality({**raw("bees", "They live in large families."), **changes}, CLEAN)
    assert verdict is not None
    assert verdict[0] == reason


def test_limits_belong_to_what_is_kept():
    long = " ".join(f"word{number}" for number in range(40))
    for response in ("Bees like honey.", long, "b c d b c d"):
        assert stage.quality(raw("bees", response), with_params(max_repetition=0.25)) is None


def test_truncated_rows_stay_where_they_are_wanted():
    row = raw("bees", "They live in large", finish_reason="length")
    assert stage.quality(row, with_params(drop_truncated=False)) is None


def test_the_split_follows_the_hash_of_seed_and_topic():
    topics = [f"topic {number}" for number in range(20)]
    split = stage.split_topics(topics, with_params(test_fraction=0.1, validation_fraction=0.15), 7)
    order = sorted(topics, key=lambda name: hashlib.sha256(f"7/{name}".encode()).hexdigest())
    assert [split[name] for name in order] == ["test"] * 2 + ["validation"] * 3 + ["train"] * 15
    assert split == stage.split_topics(reversed(topics), with_params(test_fraction=0.1, validation_fraction=0.15), 7)
    assert split != stage.split_topics(topics, with_params(test_fraction=0.1, validation_fraction=0.15), 8)


def test_a_share_is_at_least_one_topic():
    topics = ["a", "b", "c"]
    tiny = stage.split_topics(topics, with_params(test_fraction=0.01, validation_fraction=0.01), 0)
    assert sorted(tiny.values()) == ["test", "train", "validation"]


def test_no_topic_left_for_training_is_the_users_to_mend():
    with pytest.raises(UserError, match="leave none to train on"):
        stage.split_topics(["a", "b"], CLEAN, 0)


def test_dropped_rows_and_new_teachers_move_no_topic():
    rows = corpus()
    worse = [{**row, "response": ""} if row["topic"] == TOPIC["test"] else row for row in rows]
    more = [*rows, *({**row, "id": f"{row['prompt_id']}@u", "teacher": "u", "response": row["id"]} for row in rows)]
    for changed in (rows, worse, more):
        _, parts = cleaned(changed)
        assert all(SPLIT[row["topic"]] == split for split in stage.SPLITS for row in parts[split])


def test_a_topic_in_another_case_or_spacing_is_the_same():
    rows = [*corpus(), raw(f" {TOPIC['test'].upper()} ", "They live in large families.", "x")]
    metrics, parts = cleaned(rows)
    assert rows[-1] in parts["test"]
    assert metrics["splits"]["test"]["topics"] == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(SPLIT)),
            st.one_of(st.sampled_from([" ".join(LETTERS), "They live in large families.", "no", ""]), st.text()),
            st.sampled_from(["stop", "length", "error", "content_filter", "other"]),
        )
    )
)
def test_every_row_is_kept_or_dropped_and_never_both(drawn):
    rows = corpus() + [
        raw(topic, response, f"q{number}", finish_reason=finish)
        for number, (topic, response, finish) in enumerate(drawn)
    ]
    metrics, parts = cleaned(rows)
    assert metrics["requested"] == len(rows) == metrics["kept"] + metrics["dropped"] == sum(map(len, parts.values()))
    assert sum(metrics["reasons"].values()) == metrics["dropped"]
    assert sorted(row["id"] for part in parts.values() for row in part) == sorted(row["id"] for row in rows)
    kept = [text.normalise(row["response"]) for split in stage.SPLITS for row in parts[split]]
    assert len(kept) == len(set(kept))


def test_a_lost_row_does_not_pass_unseen():
    lost = stage.Verdicts(np.array([stage.KEPT] * 3 + [stage.KEPT + 1]), np.zeros(4), np.zeros(4))
    with (
        taken(corpus()) as rows,
        pytest.raises(AssertionError, match=r"4 rows requested, but .*3, 'dropped': 0"),
    ):
        stage.summary(rows, stage.claims(rows, CLEAN, SEED), lost)


def test_the_summary_counts_every_reason_and_split():
    rows = [*corpus(), raw(TOPIC["train"], "", "x")]
    metrics, _ = cleaned(rows)
    assert metrics["reasons"] == dict.fromkeys(stage.REASONS, 0) | {"empty": 1}
    assert metrics["splits"] == {
        "train": {"rows": 2, "topics": 2, "words": 12},
        "validation": {"rows": 1, "topics": 1, "words": 6},
        "test": {"rows": 1, "topics": 1, "words": 6},
    }


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_without_rows_is_refused_with_the_reasons(split):
    rows = [{**row, "response": ""} if SPLIT[row["topic"]] == split else row for row in corpus()]
    metrics, _ = cleaned(rows)
    with pytest.raises(UserError, match=rf"no row in {split}; of 4 rows were dropped: empty \d"):
        stage.refuse_empty(metrics)


BROKEN = [
    ({"response": None}, "response: input should be a valid string"),
    ({"messages": []}, "messages: list should have at least 1 item"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: field required"),
    ({"finish_reason": "done"}, "finish_reason: input should be 'stop'"),
    ({"logprobs": [-0.5, float("nan")]}, "logprobs.1: input should be a finite number"),
    ({"usage": {"prompt_tokens": "9", "completion_tokens": 2}}, "usage.prompt_tokens: input should be a valid integer"),
    ({"error": {"message": "?"}}, "error.class: field required"),
    ({"sample": -1}, "sample: input should be greater than or equal to 0"),
    ({"entropies": [float("inf")]}, "entropies.0: input should be a finite number"),
    ({"margins": ["0.1"]}, "margins.0: input should be a valid number"),
    ({"judge_score": "good"}, "judge_score: input should be a valid number"),
    ({"fused_from": [1]}, "fused_from.0: input should be a valid string"),
    ({"degraded": "no_logprobs"}, "degraded: input should be a valid list"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN)
def test_a_broken_row_is_named_with_line_id_and_what_is_wrong(changes, message):
    with pytest.raises(UserError) as caught:
        taken([raw("ants", "One."), {**raw("bees", "Two."), **changes}])
    assert "responses.jsonl, line 2 (id 'bees/fact@t') is broken: " + message in str(caught.value)


def test_a_row_that_lacks_a_key_a_repeated_id_and_no_rows_are_refused():
    row = raw("ants", "One.")
    with pytest.raises(UserError, match=r"line 1 .*teacher: field required"):
        taken([{key: value for key, value in row.items() if key != "teacher"}])
    with pytest.raises(UserError, match=r"line 2 .*has the id of an earlier line"):
        taken([row, row])
    with pytest.raises(UserError, match="has no rows"):
        taken([])


def test_rows_are_taken_in_order_of_prompt_teacher_and_sample():
    rows = [
        raw("bees", "One."),
        raw("ants", "Two.", id="x", teacher="b"),
        raw("ants", "Three.", id="y/10", teacher="a", sample=10),
        raw("ants", "Four.", id="y/2", teacher="a", sample=2),
        raw("ants", "Five.", id="y", teacher="a"),
    ]
    assert [row["response"] for row in taken(rows)] == ["Five.", "Four.", "Three.", "Two.", "One."]


def command(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "stages.clean"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path):
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**params, "seed": SEED, "clean": SECTION}))
    (tmp_path / "data/raw").mkdir(parents=True)
    rows = [*corpus(), *(raw("cats", **{"response": "", "form": f"q{n}", **bad}) for n, (_, bad) in enumerate(BAD))]
    rows.append(raw("dogs", "Caf\u00e9s \u2028 are nice.", "line", note="an extra key"))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / stage.RESPONSES).write_text(lines, encoding="utf-8")
    return tmp_path


def outputs(folder):
    files = [*(stage.FOLDER / f"{name}.jsonl" for name in (*stage.SPLITS, "dropped")), stage.METRICS]
    return {str(file): (folder / file).read_bytes() for file in files}


def test_the_command_gives_the_same_bytes_twice_and_keeps_rows_as_they_were(folder):
    first_run = command(folder)
    assert first_run.returncode == 0, first_run.stderr
    assert "dropped      2 failed\n" in first_run.stdout
    first = outputs(folder)
    assert command(folder).returncode == 0
    assert outputs(folder) == first
    given = {row["id"]: row for row in map(json.loads, (folder / stage.RESPONSES).open(encoding="utf-8"))}
    for name, content in first.items():
        if name.endswith(".jsonl"):
            for row in map(json.loads, content.decode().split("\n")[:-1]):
                original = given.pop(row["id"])
                assert row == original | {
                    key: row[key] for key in ("reason", "detail", "matching_text") if "dropped" in name
                }
    assert given == {}
    assert json.loads(first["metrics/clean.json"])["reasons"]["failed"] == 2


def test_the_command_stops_with_one_message_and_writes_nothing_for_a_broken_row(folder):
    with (folder / stage.RESPONSES).open("a") as file:
        file.write('{"id": "half"}\n')
    result = command(folder)
    assert result.returncode == 1
    assert "line 15 (id 'half') is broken: prompt_id: field required" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / stage.FOLDER).exists()
