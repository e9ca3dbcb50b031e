"""The benchmark of training, by the real command on the tiny experiment; with TRL if it is installed."""

import json
import shutil

import pytest
import tiny

from distill.core.errors import UserError
from distill.core.files import file_hash
from distill.modeling.chat import Example
from tools.bench import plan
from tools.bench import train as compare

COMMAND = ["python", "-m", "tools.bench", "train", "--steps", "3", "--warmup", "1", "--rounds", "1", "--layers", "2"]
TRL = tiny.ROOT / ".distill" / f"trl-{file_hash(tiny.ROOT / compare.REQUIREMENTS)[:16]}"
OPTIONS = compare.Options(steps=3, warmup=1, rounds=1, layers=2, trl=False)


def examples(count: int) -> list[Example]:
    """The example of number n has a prompt of 2 tokens and a response of n + 1."""
    return [Example(str(number), [1, 1], [5] * (number + 1)) for number in range(count)]


def test_timed_tokens_are_of_responses_after_the_warm_up():
    found = compare.planned(examples(7), 2, OPTIONS, seed=0)
    assert sorted(found.order) == list(range(6))
    assert compare.timed_tokens(examples(7), found) == 21 - sum(place + 1 for place in found.order[:2])


def test_too_few_rows_and_too_long_a_warm_up_are_refused():
    with pytest.raises(UserError, match="3 steps need 6 rows, there are 5"):
        compare.planned(examples(5), 2, OPTIONS, seed=0)
    with pytest.raises(UserError, match="--warmup must be at least 1 and below --steps, 3, given 3"):
        compare.planned(examples(6), 2, compare.Options(3, 3, 1, 2, False), seed=0)


def test_each_round_has_another_order_of_the_same_rows(tmp_path):
    prepared = compare.Prepared(examples(41), 2, None, [], [])
    orders = []
    for seed in (1, 2):
        assert compare.draw(tmp_path, prepared, compare.Options(20, 1, 2, 2, False), seed) > 0
        orders.append(plan.read(tmp_path).order)
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_the_fastest_run_of_each_is_compared():
    def run(seconds, gb, tokens=1000, kl=1.5):
        fixed = {"peak_gb": gb, "tokens": tokens, "kl": kl, "mfu": 1 / seconds}
        return fixed | {"seconds": seconds, "processor_seconds": 2 * seconds}

    runs = {"trl": [run(20.0, 4.0), run(25.0, 4.0, kl=1.4)], "stored_full_vocabulary": [run(4.0, 2.0)]}
    runs |= {"stored": [run(2.5, 2.0, tokens=800), run(2.0, 1.0)], "online": [run(8.0, 2.0)]}
    found = compare.summary(runs)
    assert (found["trl_tokens_per_s"], found["stored_tokens_per_s"], found["online_tokens_per_s"]) == (50, 500, 125)
    assert (found["stored_speedup"], found["stored_full_vocabulary_speedup"], found["online_speedup"]) == (10, 5, 2.5)
    assert (found["stored_memory_fraction"], found["online_memory_fraction"]) == (0.25, 0.5)
    assert (found["mfu"], found["stored_tokens_per_processor_s"], found["trl_kl"]) == (0.5, 250, 1.45)
    assert found["trl_kl_of_rounds"] == [1.5, 1.4]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the pipeline of the fixture may be in it
def test_without_trl_the_section_has_our_results(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "repository", ignore=shutil.ignore_patterns("tmp"))
    (folder / "metrics/bench.json").write_text('{"generate": {"requests_per_s": 1.0}}')
    tiny.run(folder, *COMMAND, "--no-trl", timeout=600)
    found = json.loads((folder / "metrics/bench.json").read_text())
    assert found["generate"] == {"requests_per_s": 1.0}
    train = found["train"]
    for name in ("stored", "stored_full_vocabulary", "online"):
        assert train[f"{name}_tokens_per_s"] > 0
        assert 0.05 < train[f"{name}_peak_gb"] < 4
    # k best and the rest, or all of it
    assert train["stored_full_vocabulary_kl"] == pytest.approx(train["online_kl"], rel=0.1)
    assert not any(key.startswith("trl") for key in train)
    rows = [json.loads(line) for line in (folder / "data/weighted/train.jsonl").read_text().splitlines()]
    whole = sum(len(row["logprobs"]) for row in rows[:12])
    assert 0 < train["timed_tokens"] < whole


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not TRL.exists(), reason="TRL is not installed: python -m tools.bench train installs it")
def test_trl_and_ours_learn_the_same_from_the_same_batches(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "repository", ignore=shutil.ignore_patterns("tmp"))
    shutil.copytree(TRL, folder / ".distill" / TRL.name)
    tiny.run(folder, *COMMAND, timeout=600)
    train = json.loads((folder / "metrics/bench.json").read_text())["train"]
    assert train["trl_kl"] == pytest.approx(train["stored_full_vocabulary_kl"], rel=0.05)
    assert train["stored_speedup"] == pytest.approx(train["stored_tokens_per_s"] / train["trl_tokens_per_s"], rel=0.01)
