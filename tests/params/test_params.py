import copy
from pathlib import Path

import pytest
import yaml
from chat_server import api_teacher
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.errors import UserError
from distill.params import loading

SHIPPED = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())


def changed(path: str, value: object) -> dict:
    result = copy.deepcopy(SHIPPED)
    *parents, last = path.split(".")
    place = result
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[last] = value
    return result


def refused(value: object) -> str:
    with pytest.raises(UserError) as error:
        loading.check(value)
    return str(error.value)


def test_the_shipped_file_is_accepted():
    assert loading.check(SHIPPED).seed == SHIPPED["seed"]


def test_a_number_written_as_1e_minus_4_means_the_number_in_yaml_and_as_text():
    assert yaml.safe_load("1e-4") == "1e-4"
    assert loading.check(changed("train.schedule.learning_rate", "1e-4")).train.schedule.learning_rate == 1e-4
    assert loading.check(changed("train.schedule.learning_rate", 0.0001)).train.schedule.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("train.schedule.epochs", 0, "train.schedule.epochs: input should be greater than or equal to 1 (given 0)"),
        ("train.schedule.epochs", "three", "train.schedule.epochs: input should be a valid integer"),
        ("train.schedule.epochs", 2.5, "train.schedule.epochs:"),
        ("train.schedule.save_every", 15, "must be a multiple of log_every (10)"),
        ("train.schedule.learning_rate", "fast", "train.schedule.learning_rate:"),
        ("train.schedule.learning_rate", float("nan"), "train.schedule.learning_rate:"),
        ("train.distilled.loss", "kl", "train.distilled.loss: input should be 'cross_entropy', 'forward_kl'"),
        ("train.sft.loss", "forward_kl", "sft.loss: must be cross_entropy"),
        ("train.student.layers", True, "train.student.layers:"),
        ("weight.targets.kind", "guessed", "weight.targets:"),
        ("weight.targets.top_k", 0, "weight.targets.top_k: input should be greater than or equal to 1 (given 0)"),
        (
            "weight.targets",
            {"kind": "sampled", "teacher": "smollm2", "batch_tokens": 1, "draws": 256},
            "weight.targets.draws: input should be less than or equal to 255",
        ),
        ("train.student.layers", 5, "layer_choice: listed goes with a list of layers"),
        ("train.student.layer_choice", "evenly", "layer_choice: listed goes with a list of layers"),
        ("train.student.layer_choice", "best", "layer_choice: input should be 'listed', 'evenly', 'first_and_last'"),
        ("train.student.neurons", 0, "train.student.neurons: input should be greater than or equal to 1"),
        ("train.student.source", "hub", "train.student"),
        ("train.student.teacher", "nobody", "train.student.teacher: must be a local teacher of `teachers`"),
        (
            "evaluate.teacher",
            "nobody",
            "must be a local teacher of `teachers` with its own chat template (['smollm2'])",
        ),
        ("weight.targets", None, "train.distilled.loss: forward_kl needs stored targets"),
        ("weight.confidence", "vibes", "weight.confidence: input should be 'mean_log_prob', 'min_log_prob'"),
        ("weight.layers", [], "weight.layers: list should have at least 1 item"),
        ("weight.layers", [3, 3], "layers: must name each layer once, in ascending order, given [3, 3]"),
        (
            "train.distilled.layer_loss",
            {"pairs": [[20, 1]], "loss": "mse", "projection": True, "weight": 1.0, "alone": 0.0},
            "train.distilled.layer_loss.pairs: layers [20] of the teacher are not stored; weight.layers must list them",
        ),
        (
            "train.distilled.layer_loss",
            {"pairs": [[20, 1]], "loss": "mse", "projection": True, "weight": 0.0, "alone": 0.0},
            "weight: 0 with alone: 0 makes no use of it",
        ),
        (
            "train.distilled.layer_loss",
            {"pairs": [[20, 1], [21, 1]], "loss": "mse", "projection": True, "weight": 1.0, "alone": 0.0},
            "pairs: a layer of the student may be named once",
        ),
        (
            "train.distilled.layer_loss",
            {"pairs": [[20]], "loss": "l2", "projection": True, "weight": 1.0, "alone": 0.0},
            "train.distilled.layer_loss.loss: input should be 'cosine' or 'mse'",
        ),
        ("clean.languages", [], "clean.languages: list should have at least 1 item"),
        ("clean.test_fraction", 0.99, "must add up to less than 1, got 1.02"),
        ("clean.min_words", 500, "min_words must be at most max_words (200), got 500"),
        ("teachers.0.sha256", "abc", "teachers.0.sha256:"),
        ("teachers.0.kind", "magic", "teachers.0: input tag 'magic'"),
        (
            "generate.mixture.policy",
            "best_of_n",
            "generate.mixture: judge: must be the name of a teacher with policy best_of_n",
        ),
        ("generate.mixture.policy", "fuse", "aggregator: must be the name of a teacher with policy fuse"),
        ("generate.mixture.aggregator", "smollm2", "aggregator: must be the name of a teacher with policy fuse"),
        ("generate.mixture.judge", "nobody", "generate.mixture.judge: must be one of `teachers` (['smollm2'])"),
        (
            "teachers.0.chat_template",
            "few_shot",
            "evaluate.teacher: must be a local teacher of `teachers` with its own",
        ),
        ("teachers.0.prompt_fraction", 0.0, "teachers: every prompt_fraction is 0"),
        ("seed", -1, "seed: input should be greater than or equal to 0"),
        ("plot", None, "plot:"),
    ],
)
def test_a_mistake_is_named_with_its_path_and_what_is_allowed(path, value, words):
    assert words in refused(changed(path, value))


def test_ifd_without_a_model_to_measure_it_is_refused():
    value = changed("weight.targets", None)
    value["train"]["distilled"]["loss"] = "cross_entropy"
    value["weight"]["confidence"] = "ifd"
    assert "ifd is measured with the teacher of weight.targets, but that is null" in refused(value)


def test_all_mistakes_are_listed_at_once():
    value = changed("train.schedule.epochs", 0)
    value["seed"] = "x"
    value["extra"] = 1
    del value["plot"]["dpi"]
    message = refused(value)
    assert "4 mistakes" in message
    for words in ("train.schedule.epochs", "seed:", "extra: is not a known key", "plot.dpi: is missing"):
        assert words in message


def test_a_message_fits_one_screen_however_many_the_mistakes():
    value = {name: {f"key{number}": 1 for number in range(60)} for name in SHIPPED}
    assert len(refused(value).splitlines()) <= 24


def test_shares_that_divide_the_prompts_may_not_exceed_them():
    value = copy.deepcopy(SHIPPED)
    value["teachers"] = [value["teachers"][0] | {"prompt_fraction": 0.6, "name": name} for name in ("smollm2", "other")]
    assert "must add up to at most 1, got 1.2" in refused(value)


def test_a_key_in_the_address_of_an_endpoint_is_refused():
    value = copy.deepcopy(SHIPPED)
    value["teachers"].append(api_teacher("https://user:secret@host/v1"))
    assert "teachers.1.base_url" in refused(value)


def test_a_budget_needs_the_price_of_every_api_teacher():
    value = copy.deepcopy(SHIPPED)
    value["teachers"].append(api_teacher("http://host/v1"))
    value["generate"]["budget_usd"] = 5
    assert "generate.budget_usd: cannot be kept, since the price of ['api']" in refused(value)
    value["teachers"][1]["price"] = {"prompt": 0.5, "completion": 2}
    assert loading.check(value).generate.budget_usd == 5


def test_several_samples_of_a_greedy_teacher_are_refused():
    value = copy.deepcopy(SHIPPED)
    value["generate"]["num_samples"] = 3
    assert "generate: num_samples: must be 1 with sampling_temperature 0, got 3" in refused(value)


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_file_that_is_no_mapping_is_refused(value):
    assert "must be a mapping" in refused(value)


@pytest.mark.parametrize("text", ["a: [1", "\x00", "a:\n\t- b"])
def test_a_file_that_is_no_yaml_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml is not YAML"):
        loading.load()


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml is missing"):
        loading.load()


def leaves(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in leaves(part, (*path, key))]
    return [path]


JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(leaves(SHIPPED)), JUNK)
def test_any_junk_anywhere_is_taken_or_refused_with_one_message(path, junk):
    value = copy.deepcopy(SHIPPED)
    place = value
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = junk
    try:
        loading.check(value)
    except UserError as error:
        assert len(str(error).splitlines()) <= 24


def test_the_students_own_text_is_never_learnt_by_cross_entropy():
    own = {"kind": "on_policy", "teacher": "smollm2", "batch_tokens": 1, "max_tokens": 8}
    own = changed("weight.targets", own | {"student_fraction": 0.5, "sampling_temperature": 1.0})
    own["train"]["distilled"]["cross_entropy_share"] = 0.0
    assert loading.check(own).weight.targets.kind == "on_policy"
    own["train"]["distilled"]["cross_entropy_share"] = 0.5
    assert "train.distilled.cross_entropy_share: must be 0 with weight.targets.kind on_policy" in refused(own)


@pytest.mark.parametrize(("key", "value"), [("loss", "reverse_kl"), ("temperature", 2.0), ("tail", "renormalise")])
def test_draws_are_refused_with_a_loss_whose_gradient_they_would_bias(key, value):
    drawn = changed("weight.targets", {"kind": "sampled", "teacher": "smollm2", "batch_tokens": 1, "draws": 50})
    assert loading.check(drawn).weight.targets.kind == "sampled"
    drawn["train"]["distilled"][key] = value
    assert "only with train.distilled of loss forward_kl, temperature 1 and tail bucket" in refused(drawn)


def test_layers_need_a_teacher_of_targets_and_teach_no_text_of_the_students_own():
    value = changed("weight.layers", [3, 20])
    value["train"]["distilled"]["cross_entropy_share"] = 0.0
    value["train"]["distilled"]["layer_loss"] = {
        "pairs": [[20, 1]], "loss": "mse", "projection": False, "weight": 1.0, "alone": 0.1
    }  # fmt: skip
    assert loading.check(value).train.distilled.layer_loss.pairs == [[20, 1]]
    own = {"kind": "on_policy", "teacher": "smollm2", "batch_tokens": 1, "max_tokens": 8}
    value["weight"]["targets"] = own | {"student_fraction": 0.5, "sampling_temperature": 1.0}
    assert "train.distilled.layer_loss: must be null with weight.targets.kind on_policy" in refused(value)
    value["weight"]["targets"] = None
    assert "layers: are those of the teacher of weight.targets, but that is null" in refused(value)
