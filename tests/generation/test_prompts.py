"""Prompts of files, folders and data sets, their context, and their division between teachers."""

import csv
import json
from pathlib import Path

import datasets
import pytest
import tiny

from distill.core.errors import UserError
from distill.generation import hub_prompts, prompts
from distill.generation.conversations import BUCKETS, read_messages
from distill.params.generate import DatasetPrompts, FewShotExample, FolderPrompts, JsonlPrompts
from distill.params.loading import check_params
from distill.params.teachers import LocalTeacher

PROMPT = {"id": "ants/what", "topic": "ants", "messages": [{"role": "user", "content": "What are ants?"}]}
REVISION = "0123456789abcdef0123456789abcdef01234567"


def write_jsonl(path: Path, *rows: object) -> JsonlPrompts:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JsonlPrompts(source="jsonl", path=str(path))


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def test_prompts_of_a_jsonl_file_are_sorted_by_id(tmp_path):
    source = write_jsonl(tmp_path / "p.jsonl", PROMPT, PROMPT | {"id": "ants/a"})
    assert [row["id"] for row in prompts.from_jsonl(source)] == ["ants/a", "ants/what"]


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""}, {"topic": None}, {"messages": []}, {"messages": "hi"},
        {"messages": [{"role": "assistant", "content": "hi"}]}, {"messages": [{"role": "user", "content": " "}]},
        {"messages": [{"role": "robot", "content": "hi"}]}, {"messages": [{"content": "hi"}]},
    ],
)  # fmt: skip
def test_an_invalid_prompt_is_named_by_its_row(tmp_path, change):
    source = write_jsonl(tmp_path / "p.jsonl", PROMPT, PROMPT | {"id": "b"} | change)
    with pytest.raises(UserError, match="row 2"):
        prompts.from_jsonl(source)


def test_a_prompt_alone_is_enough(tmp_path, capsys):
    """The usual file: a text in each line, without ids or topics; ids and topics stay when rows are added."""
    texts = [f"What is {number}?" for number in range(300)]
    rows = [{"prompt": text} for text in texts]
    found = prompts.from_jsonl(write_jsonl(tmp_path / "p.jsonl", *rows, {"prompt": "What is 7?"}))
    assert sorted(row["messages"][0]["content"] for row in found) == sorted(texts)
    assert "1 rows that repeat one skipped" in capsys.readouterr().out
    assert {row["topic"] for row in found} <= {f"bucket-{number}" for number in range(BUCKETS)}
    assert len({row["topic"] for row in found}) > BUCKETS / 2
    more = prompts.from_jsonl(write_jsonl(tmp_path / "q.jsonl", {"prompt": "New?"}, *rows[::-1]))
    assert [row for row in more if row["messages"][0]["content"] != "New?"] == found


def test_a_prompt_may_lack_its_topic_or_its_id(tmp_path):
    messages = [user("What are ants?  ")]
    (row,) = prompts.from_jsonl(write_jsonl(tmp_path / "p.jsonl", {"messages": messages, "id": "a", "label": "x"}))
    assert (row["id"], row["messages"], row["label"]) == ("a", messages, "x")
    assert row["topic"].startswith("bucket-")
    (row,) = prompts.from_jsonl(write_jsonl(tmp_path / "p.jsonl", {"messages": messages, "topic": "ants"}))
    assert (row["topic"], len(row["id"])) == ("ants", 16)


def test_an_empty_system_message_costs_no_row(tmp_path):
    messages = [{"role": "system", "content": ""}, user("Hi.")]
    (row,) = prompts.from_jsonl(write_jsonl(tmp_path / "p.jsonl", {"messages": messages}))
    assert row["messages"] == [user("Hi.")]
    assert read_messages(messages) == ([user("Hi.")], "")


def test_what_a_row_lacks_is_said(tmp_path):
    for row, words in (
        ({"question": "Why?", "answer": "So."}, "must have prompt or messages, got the keys 'question', 'answer'"),
        ({"prompt": "  "}, "got an empty message"),
        ({"prompt": 7}, "got no text and no list of messages"),
        ({"prompt": "x", "topic": 7}, "topic must be a text or missing, got 7"),
        ({"messages": [user("x"), {"role": "assistant", "content": "y"}]}, "last of messages must be the user's"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "a role that is none of system, user, assistant"),
    ):
        with pytest.raises(UserError) as caught:
            prompts.from_jsonl(write_jsonl(tmp_path / "p.jsonl", row))
        assert words in str(caught.value)
        assert '{"prompt": "..."}' in str(caught.value)


def test_repeated_ids_and_empty_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="two prompts with the id 'ants/what'"):
        prompts.from_jsonl(write_jsonl(tmp_path / "p.jsonl", PROMPT, PROMPT))
    with pytest.raises(UserError, match="has no prompts"):
        prompts.from_jsonl(write_jsonl(tmp_path / "q.jsonl"))


def test_messages_follow_system_prompt_and_examples():
    talk = [user("Hi."), {"role": "assistant", "content": "Hello."}, user("What are ants?")]
    examples = [
        FewShotExample(user="What is 1 + 1?", assistant="2."),
        FewShotExample(user="And 2 + 2?", assistant="4."),
    ]
    prompt = prompts.with_context(PROMPT | {"messages": talk}, "Be brief.", examples)
    assert [turn["role"][0] for turn in prompt["messages"]] == ["s", "u", "a", "u", "a", "u", "a", "u"]
    assert [turn["content"] for turn in prompt["messages"]][:3] == ["Be brief.", "What is 1 + 1?", "2."]
    assert prompt["messages"][-3:] == talk
    assert (prompt["id"], prompt["topic"]) == ("ants/what", "ants")
    assert prompts.with_context(PROMPT, None, []) == PROMPT


def test_a_prompts_system_message_replaces_the_system_prompt():
    own = PROMPT | {"messages": [{"role": "system", "content": "Rhyme."}, *PROMPT["messages"]]}
    contents = [
        turn["content"]
        for turn in prompts.with_context(own, "Be brief.", [FewShotExample(user="a", assistant="b")])["messages"]
    ]
    assert contents == ["Rhyme.", "a", "b", "What are ants?"]


def test_chunks_are_paragraphs_and_lose_no_word():
    text = "a b c\n\nd e\n \nf g h i j k l\n\n\nm"
    assert list(prompts.chunks(text, 5)) == ["a b c\n\nd e", "f g h i j", "k l\n\nm"]
    assert list(prompts.chunks(text, 1)) == list("abcdefghijklm")
    assert list(prompts.chunks(" \n\n ", 5)) == []


def folder(path: Path, **changes: object) -> FolderPrompts:
    values = {"pattern": "**/*.txt", "chunk_words": 3, "template": "Ask about {text}: {braces} stay."}
    return FolderPrompts(**{"source": "folder", "path": str(path)} | values | changes)


def test_a_text_without_spaces_has_chunks_of_words():
    chinese = "\u871c\u8702\u5728\u98de\u3002" * 10
    assert [chunk.count("\u98de") for chunk in prompts.chunks(chinese, 20)] == [5, 5]


def test_each_chunk_of_a_text_is_a_prompt(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/bees.txt").write_text("one two three\n\nfour")
    (tmp_path / "ants.txt").write_text("five")
    (tmp_path / "notes.md").write_text("never read")
    (tmp_path / "empty.txt").write_text("\n")
    found = prompts.from_folder(folder(tmp_path))
    assert [(row["id"], row["topic"]) for row in found] == [
        ("ants.txt/0000", "ants.txt"),
        ("deep/bees.txt/0000", "deep/bees.txt"),
        ("deep/bees.txt/0001", "deep/bees.txt"),
    ]
    assert found[2]["messages"] == [user("Ask about four: {braces} stay.")]


def test_a_folder_without_valid_texts_is_refused(tmp_path):
    with pytest.raises(UserError, match="no file that matches"):
        prompts.from_folder(folder(tmp_path))
    (tmp_path / "a.txt").write_text(" ")
    with pytest.raises(UserError, match="contain no words"):
        prompts.from_folder(folder(tmp_path))
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"b\.txt must be UTF-8"):
        prompts.from_folder(folder(tmp_path))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def dataset(path: Path, name: str = "json", **changes: object) -> DatasetPrompts:
    values: dict[str, object] = {
        "source": "dataset", "path": str(path), "name": name, "config": None, "split": "train", "column": "q",
        "topic": 4, "revision": None, "streaming": False, "limit": None,
    }  # fmt: skip
    return DatasetPrompts(**values | changes)


QUESTIONS = [f"What is {number}?" for number in range(40)]


def files(tmp_path: Path) -> dict[str, Path]:
    rows = [{"q": text, "about": f"n{place % 3}"} for place, text in enumerate(QUESTIONS)]
    found = {name: tmp_path / f"rows.{name}" for name in ("json", "csv", "parquet")}
    found["json"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    with found["csv"].open("w", newline="") as file:
        writer = csv.DictWriter(file, ["q", "about"])
        writer.writeheader()
        writer.writerows(rows)
    datasets.Dataset.from_list(rows).to_parquet(found["parquet"])
    return found


@pytest.mark.parametrize("streaming", [False, True])
def test_words_of_a_csv_file_stay_as_they_stand(tmp_path, streaming):
    words = ["NA", "null", "None", "nan", "N/A", "", "007", "1e5", "True", "2020-01-01", "1,234", " 5 "]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["q", "about", "score"])
        writer.writerows([word or "empty topic", word, 1] for word in words)
    found, skipped = hub_prompts.from_dataset(dataset(path, "csv", topic="about", streaming=streaming))
    texts = sorted((row["messages"][0]["content"], row["topic"]) for row in found)
    assert texts == sorted((word.strip(), word.strip()) for word in words if word)
    assert skipped == {"no topic": 1}


def test_prompts_of_json_csv_and_parquet_are_the_same(tmp_path):
    variants = [
        hub_prompts.from_dataset(dataset(path, name, streaming=streaming))
        for name, path in files(tmp_path).items()
        for streaming in (False, True)
    ]
    assert all(variant == variants[0] for variant in variants)
    found, skipped = variants[0]
    assert sorted(row["messages"][0]["content"] for row in found) == sorted(QUESTIONS)
    assert [row["id"] for row in found] == sorted(row["id"] for row in found)
    assert not skipped


def test_a_row_keeps_its_id_when_rows_are_inserted(tmp_path):
    path = files(tmp_path)["json"]
    before = {row["id"]: row["topic"] for row in hub_prompts.from_dataset(dataset(path))[0]}
    path.write_text(json.dumps({"q": "New?", "about": "n"}) + "\n" + path.read_text())
    after = {row["id"]: row["topic"] for row in hub_prompts.from_dataset(dataset(path))[0]}
    assert len(after) == 41
    assert before.items() < after.items()
    assert set(before.values()) == {f"bucket-{number}" for number in range(4)}


def test_topics_may_be_a_column_and_rows_limited(tmp_path):
    path = files(tmp_path)["json"]
    found, _ = hub_prompts.from_dataset(dataset(path, topic="about", limit=4, streaming=True))
    assert {row["messages"][0]["content"]: row["topic"] for row in found} == {
        "What is 0?": "n0", "What is 1?": "n1", "What is 2?": "n2", "What is 3?": "n0",
    }  # fmt: skip


def test_rows_without_a_new_prompt_are_skipped_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"q": text}) + "\n" for text in ["One?", " ", None, "One? ", "Two?"]))
    found, skipped = hub_prompts.from_dataset(dataset(path))
    assert sorted(row["messages"][0]["content"] for row in found) == ["One?", "Two?"]
    assert skipped == {"an empty message": 1, "no text and no list of messages": 1, "a repeated prompt": 1}
    assert hub_prompts.skipped_rows(skipped).startswith("1 with an empty message, 1 with ")
    path.write_text('{"q": ""}\n')
    with pytest.raises(UserError, match="no row of data set 'json' has a prompt in column 'q'"):
        hub_prompts.from_dataset(dataset(path))


def test_a_folder_of_files_is_read_in_the_order_of_their_names(tmp_path):
    for name, text in (("b", "Two?"), ("a", "One?")):
        (tmp_path / f"{name}.txt").write_text(text)
    found, _ = hub_prompts.from_dataset(dataset(tmp_path, "text", column="text", limit=1))
    assert [row["messages"] for row in found] == [[user("One?")]]


def test_a_conversation_ends_with_its_last_question():
    says = {"role": "assistant", "content": "Hello."}
    assert read_messages([user("Hi."), says, user("Why? "), says])[0] == [user("Hi."), says, user("Why?")]
    share_gpt = [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}]
    assert read_messages(share_gpt)[0] == [user("Hi.")]
    for none in ([], [says], [user(" ")], [{"role": "tool", "content": "x"}], ["text"], 3, None):
        assert read_messages(none)[0] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"column": "prompt"}, "has no column 'prompt'; it has about, q"),
        ({"topic": "subject"}, "has no column 'subject'; it has about, q"),
        ({"split": "test"}, "cannot be read: Unknown split"),
        ({"name": "parquet"}, "cannot be read"),
    ],
)
def test_a_missing_part_of_a_data_set_is_named(tmp_path, change, words):
    source = dataset(files(tmp_path)["json"], **change)
    with pytest.raises(UserError, match=words):
        hub_prompts.from_dataset(source)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (dict(dataset(Path("p"))) | {"name": "owner/set"}, "generate.prompts: revision: must be the 40 digits"),
        (dict(dataset(Path("p"))) | {"revision": REVISION}, "generate.prompts: revision: must be null for local"),
        (dict(dataset(Path("p"))) | {"topic": 0}, "generate.prompts.topic: input should be greater"),
        (dict(folder(Path("p"))) | {"template": "no place"}, "generate.prompts.template: string should match"),
        ({"source": "web"}, "generate.prompts: input tag 'web'"),
        ("data/prompts/prompts.jsonl", "generate.prompts:"),
    ],
)
def test_a_mistake_in_the_section_is_named_with_its_path(section, words):
    import yaml

    value = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    value["generate"]["prompts"] = section
    with pytest.raises(UserError) as error:
        check_params(value)
    assert words in str(error.value)


def teachers(*fractions: float) -> list[LocalTeacher]:
    base = tiny.params()["teachers"][0]
    changes = [{"name": f"t{number}", "prompt_fraction": fraction} for number, fraction in enumerate(fractions)]
    return [LocalTeacher(**(base | change)) for change in changes]


def many(count: int = 1000) -> list[dict]:
    return [PROMPT | {"id": f"p{number}"} for number in range(count)]


def test_teachers_with_a_fraction_of_1_get_every_prompt():
    divided = prompts.divide_prompts(many(10), teachers(1.0, 1.0), seed=1)
    assert divided == {"t0": many(10), "t1": many(10)}


def test_fractions_divide_the_prompts_in_proportion():
    divided = prompts.divide_prompts(many(), teachers(0.25, 0.75), seed=1)
    ids = [{row["id"] for row in divided[name]} for name in ("t0", "t1")]
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == 1000
    assert 200 < len(ids[0]) < 300


def test_a_prompt_keeps_its_teacher_when_prompts_are_added():
    few = {row["id"] for row in prompts.divide_prompts(many(100), teachers(0.5, 0.5), seed=1)["t0"]}
    more = {row["id"] for row in prompts.divide_prompts(many(200), teachers(0.5, 0.5), seed=1)["t0"]}
    assert few == {name for name in more if int(name[1:]) < 100}
