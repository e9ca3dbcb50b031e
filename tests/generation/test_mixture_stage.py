"""Stage generate with several teachers: judge, aggregator, self-instruct, and one teacher that fails."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import tiny
import yaml
from chat_server import Reply, api_teacher, chat_server, completion

from distill.cleaning.responses import Responses
from distill.core.errors import UserError
from distill.generation import aggregator, judge
from distill.generation.api import capabilities
from stages import generate

PROMPTS = len(tiny.TOPICS) * len(tiny.FORMS)


def api(name: str, url: str, **changes: object) -> dict:
    return api_teacher(url, name=name, model=name, max_retries=0, **changes)


def reply(body: dict, text: str) -> Reply:
    answer = completion(body)
    answer["choices"][0]["message"]["content"] = text
    return Reply(body=json.dumps(answer))


def experiment(folder: Path, monkeypatch, url: str, **changes: object) -> None:
    """Writes params and prompts into the folder. The local teacher, for later stages, has no prompt."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["generate"])
    monkeypatch.setenv("TINY_KEY", "x")
    monkeypatch.delenv("DISTILL_HOME", raising=False)
    local = tiny.params()["teachers"][0] | {"prompt_fraction": 0.0}
    teachers = [local, api("anna", url), api("bert", url), api("cleo", url, prompt_fraction=0.0)]
    (folder / "data/prompts").mkdir(parents=True, exist_ok=True)
    (folder / "data/prompts/tiny.jsonl").write_text(tiny.prompts())
    shutil.copy(tiny.ROOT / "requirements.txt", folder)
    value = tiny.params(teachers=teachers, **changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(value, sort_keys=False))


def rows() -> list[dict]:
    return [json.loads(line) for line in generate.RESPONSES.read_text().splitlines()]


def is_for_judge(body: dict) -> bool:
    return judge.TASK in body["messages"][-1]["content"]


def is_for_aggregator(body: dict) -> bool:
    return aggregator.TASK in body["messages"][0]["content"]


def test_the_judge_scores_every_response_once(tmp_path, monkeypatch):
    def score(text):
        return 1 + sum(text.encode()) % 9

    def script(number, body):
        if not is_for_judge(body):
            return None
        content = body["messages"][0]["content"]
        text = content.partition("[answer to rate]\n")[2].removesuffix("\n[end of answer]")
        return reply(body, "No rating." if "honey" in content else f"Rating: [[{score(text)}]]")

    with chat_server(script) as server:
        mixture = {"policy": "best_of_n", "judge": "cleo", "aggregator": None}
        experiment(tmp_path, monkeypatch, server.url, generate__mixture=mixture)
        generate.main()
        first, asked = generate.RESPONSES.read_bytes(), len(server.bodies)
        generate.main()
        assert len(server.bodies) == asked
    assert generate.RESPONSES.read_bytes() == first
    judge_bodies = [body for body in server.bodies if is_for_judge(body)]
    assert len(judge_bodies) == 2 * PROMPTS
    auxiliary = json.loads(generate.METRICS.read_text())["cleo"]["auxiliary"]
    tokens = {"prompt_tokens": 5 * 2 * PROMPTS, "completion_tokens": 8 * 2 * PROMPTS}
    assert auxiliary == {"judge": {"requests": 2 * PROMPTS, "failed": {}, **tokens}}
    assert {(body["model"], body["temperature"]) for body in judge_bodies} == {("cleo", 0.0)}
    for row in rows():
        assert row["teacher"] in ("anna", "bert")
        assert row["judge_score"] == (None if row["topic"] == "honey" else score(row["response"]))
    assert len({row["judge_score"] for row in rows()}) > 3
    Responses(generate.RESPONSES)


def test_the_aggregator_fuses_the_responses_that_did_not_fail(tmp_path, monkeypatch):
    def script(number, body):
        if is_for_aggregator(body):
            return reply(body, f"Fused from {body['messages'][0]['content'].count('[answer ')}.")
        if body["model"] == "bert" and "ferns" in str(body["messages"]):
            return Reply(status=400, body='{"error": {"message": "no ferns"}}')
        if body["messages"][0]["content"] != "Be brief.":
            return None  # of the probe
        return reply(body, f"{body['model']} says {body['messages'][-1]['content']}")

    with chat_server(script) as server:
        mixture = {"policy": "fuse", "judge": None, "aggregator": "cleo"}
        experiment(tmp_path, monkeypatch, server.url, generate__mixture=mixture)
        generate.main()
    found = {row["id"]: row for row in rows()}
    fused = [row for row in found.values() if row["fused_from"]]
    assert len(found) == 2 * PROMPTS + len(fused)
    assert {row["topic"] for row in found.values()} - {row["topic"] for row in fused} == {"ferns"}
    for row in fused:
        assert row["id"] == f"{row['prompt_id']}@cleo:fused"
        assert row["response"] == "Fused from 2."
        assert row["fused_from"] == [f"{row['prompt_id']}@{name}" for name in ("anna", "bert")]
        assert row["messages"] == found[row["fused_from"][0]]["messages"]
    for row in found.values():
        if not row["fused_from"] and not row["error"]:
            assert row["response"] == f"{row['teacher']} says {row['messages'][-1]['content']}"
    assert list(found) == [row["id"] for row in Responses(generate.RESPONSES)]


def test_self_instruct_resumes_from_the_journal(tmp_path, monkeypatch):
    def script(number, body):
        content = body["messages"][-1]["content"]
        if "Continue the numbered list" not in content:
            return None
        topic = next(topic for topic in tiny.TOPICS if topic in content)
        return reply(body, f"9. Which old song tells of {topic}, number {len(content)}?\n10. nothing")

    section = {
        "teacher": "cleo", "num_rounds": 2, "requests_per_round": 5, "examples_per_request": 2, "max_rouge_l": 0.9,
        "max_new_tokens": 40, "sampling_temperature": 0.7, "top_p": 0.9,
    }  # fmt: skip
    with chat_server(script) as server:
        experiment(tmp_path, monkeypatch, server.url, generate__self_instruct=section)
        generate.main()
        first, asked = generate.RESPONSES.read_bytes(), len(server.bodies)
        generate.main()
        assert len(server.bodies) == asked
    assert generate.RESPONSES.read_bytes() == first
    new = [row for row in rows() if row["prompt_id"].startswith("grown/")]
    assert len(new) == 2 * 10
    for row in new:
        assert f"tells of {row['topic']}" in row["messages"][-1]["content"]
        assert row["messages"][0] == {"role": "system", "content": "Be brief."}
    sent = [body for body in server.bodies if "Continue the numbered list" in body["messages"][-1]["content"]]
    assert {(body["model"], body["max_tokens"], body["temperature"]) for body in sent} == {("cleo", 40, 0.7)}


def test_a_dry_run_counts_auxiliary_calls(tmp_path, monkeypatch, capsys):
    def script(number, body):
        if is_for_judge(body):
            return reply(body, "Rating: [[7]]")
        content = body["messages"][-1]["content"]
        if "Continue the numbered list" not in content:
            return None
        letters = hashlib.sha256(content.encode()).hexdigest()
        return reply(
            body, f"3. Who is {letters[:9]} of {letters[9:30]}?\n4. Where did {letters[30:40]} see {letters[40:]}?"
        )

    def to_send() -> dict[str, int]:
        monkeypatch.setattr("sys.argv", ["generate", "--dry-run"])
        generate.main()
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        return {line[0]: int(line[2]) for line in lines if line[0] in ("anna", "bert", "cleo")}

    section = {
        "teacher": "cleo", "num_rounds": 2, "requests_per_round": 5, "examples_per_request": 2, "max_rouge_l": 0.9,
        "max_new_tokens": 40, "sampling_temperature": 0.7, "top_p": 0.9,
    }  # fmt: skip
    mixture = {"policy": "fuse", "judge": "cleo", "aggregator": "cleo"}
    every = PROMPTS + 2 * 5 * 2
    with chat_server(script) as server:
        experiment(tmp_path, monkeypatch, server.url, generate__self_instruct=section, generate__mixture=mixture)
        before = to_send()
        assert server.bodies == []
        assert not list(tmp_path.rglob("journal/*"))
        monkeypatch.setattr("sys.argv", ["generate"])
        generate.main()
        capsys.readouterr()
        assert to_send() == {"anna": 0, "bert": 0, "cleo": 0}
    own = every + len(capabilities.SEEDS)
    assert before == {"anna": own, "bert": own, "cleo": 2 * 5 + every + 3 * every + len(capabilities.SEEDS)}
    assert Counter(body["model"] for body in server.bodies) == before


def test_each_row_of_a_data_set_is_sent_once(tmp_path, monkeypatch):
    source = {
        "source": "dataset", "path": "data/prompts/q.jsonl", "name": "json", "config": None, "split": "train",
        "column": "q", "topic": 5, "revision": None, "streaming": True, "limit": None,
    }  # fmt: skip
    shot = {"user": "What is 1 + 1?", "assistant": "2."}
    with chat_server() as server:
        experiment(tmp_path, monkeypatch, server.url, generate__prompts=source, generate__few_shot=[shot])
        questions = [f"What is {number}?" for number in range(9)]
        (tmp_path / "data/prompts/q.jsonl").write_text("\n".join(json.dumps({"q": text}) for text in questions))
        generate.main()
    assert len(rows()) == 18
    sent = [body for body in server.bodies if body["messages"][-1]["content"] in questions]
    assert len(sent) == 18
    for body in sent:
        assert [turn["role"] for turn in body["messages"]] == ["system", "user", "assistant", "user"]
        assert body["messages"][2]["content"] == "2."


def test_a_judge_without_ratings_stops_best_of_n(tmp_path, monkeypatch):
    with chat_server() as server:
        mixture = {"policy": "best_of_n", "judge": "cleo", "aggregator": None}
        experiment(tmp_path, monkeypatch, server.url, generate__mixture=mixture)
        (tmp_path / "data/prompts/tiny.jsonl").write_text(tiny.prompts().partition("\n")[0] + "\n")
        with pytest.raises(UserError, match=r"judge 'cleo' must rate responses .*, got no rating for 2 responses"):
            generate.main()
