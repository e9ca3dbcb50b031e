import copy
from pathlib import Path

import pytest
import yaml
from chat_server import api_teacher
from hypothesis import given, settings
from hypothesis import strategies as st
from shipped_params import SAMPLED, SHIPPED, WEIGHTS, changed, refusal

from distill.core.errors import UserError
from distill.params.loading import check_params, load_params


def test_the_shipped_file_is_accepted():
    assert check_params(SHIPPED).data_seed == SHIPPED["data_seed"]


def test_1e_minus_4_is_a_number_in_yaml_and_as_text():
    assert yaml.safe_load("1e-4") == "1e-4"
    assert check_params(changed(("train.optimization.learning_rate", "1e-4"))).train.optimization.learning_rate == 1e-4
    assert check_params(changed(("train.optimization.learning_rate", 0.0001))).train.optimization.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            "train.optimization.num_train_epochs",
            0,
            "train.optimization.num_train_epochs: input should be greater than or equal to 1 (got 0)",
        ),
        (
            "train.optimization.num_train_epochs",
            "three",
            "train.optimization.num_train_epochs: input should be a valid integer",
        ),
        ("train.optimization.num_train_epochs", 2.5, "train.optimization.num_train_epochs:"),
        ("train.optimization.save_steps", 15, "must be a multiple of logging_steps (10)"),
        ("train.optimization.learning_rate", "fast", "train.optimization.learning_rate:"),
        ("train.optimization.learning_rate", float("nan"), "train.optimization.learning_rate:"),
        ("train.distilled.loss.kind", "kl", "train.distilled.loss: input tag 'kl'"),
        ("init.layers", True, "init.layers:"),
        ("targets.kind", "guessed", "targets: input tag 'guessed'"),
        ("targets.top_k", 0, "targets.top_k: input should be greater than or equal to 1 (got 0)"),
        (
            "targets",
            SAMPLED | {"num_draws": 256},
            "targets.num_draws: input should be less than or equal to 255",
        ),
        ("init.layers", 5, "layer_selection: explicit goes with a list of layers"),
        ("init.layer_selection", "uniform", "layer_selection: explicit goes with a list of layers"),
        (
            "init.layer_selection",
            "best",
            "init.layer_selection: input should be 'explicit', 'uniform', 'first_and_last'",
        ),
        ("init.intermediate_size", 0, "init.intermediate_size: input should be greater than or equal to 1"),
        ("init.source", "hub", "init: input tag 'hub'"),
        ("init.teacher", "nobody", "init.teacher: must be a local teacher of `teachers`"),
        (
            "evaluate.teacher",
            "nobody",
            "must be a local teacher of `teachers` with its own chat template (['smollm2'])",
        ),
        ("targets", None, "train.distilled.loss: forward_kl needs targets"),
        ("weight", WEIGHTS | {"confidence": {"measure": "vibes"}}, "weight.confidence: input tag 'vibes'"),
        ("targets.layers", [], "targets.layers: list should have at least 1 item"),
        ("targets.layers", [3, 3], "targets: layers: must name each layer once, in ascending order, got [3, 3]"),
        (
            "train.distilled.hidden_loss",
            {"layer_pairs": [[20, 1]], "distance": "mse", "projection": True, "weight": 1.0, "hint_fraction": 0.0},
            "train.distilled.hidden_loss.layer_pairs: layers [20] of the teacher are not stored; targets.layers must",
        ),
        (
            "train.distilled.hidden_loss",
            {"layer_pairs": [[20, 1]], "distance": "mse", "projection": True, "weight": 0.0, "hint_fraction": 0.0},
            "weight: 0 with hint_fraction: 0 has no effect",
        ),
        (
            "train.distilled.hidden_loss",
            {
                "layer_pairs": [[20, 1], [21, 1]],
                "distance": "mse",
                "projection": True,
                "weight": 1.0,
                "hint_fraction": 0.0,
            },
            "layer_pairs: must name a layer of the student once",
        ),
        (
            "train.distilled.hidden_loss",
            {"layer_pairs": [[20]], "distance": "l2", "projection": True, "weight": 1.0, "hint_fraction": 0.0},
            "train.distilled.hidden_loss.distance: input should be 'cosine' or 'mse'",
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
        ("teachers.0.prompt_fraction", 0.0, "teachers: prompt_fraction must be above 0 for one of them"),
        ("data_seed", -1, "data_seed: input should be greater than or equal to 0"),
        ("plot", None, "plot:"),
    ],
)
def test_a_mistake_names_path_and_allowed_values(path, value, words):
    assert words in refusal(changed((path, value)))


def test_all_mistakes_are_listed_at_once():
    value = changed(("train.optimization.num_train_epochs", 0))
    value["data_seed"] = "x"
    value["extra"] = 1
    del value["plot"]["dpi"]
    message = refusal(value)
    assert "4 mistakes" in message
    for words in (
        "train.optimization.num_train_epochs",
        "data_seed:",
        "extra: is not a known key",
        "plot.dpi: is missing",
    ):
        assert words in message


TOP_K_WITHOUT_BATCH = {key: value for key, value in SHIPPED["targets"].items() if key != "batch_tokens"}


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("init.layers", [-1], "  init.layers.0: input should be greater than or equal to 0 (got -1)"),
        ("init.layers", 0, "  init.layers: input should be greater than or equal to 1 (got 0)"),
        ("targets.batch_tokens", 0, "  targets.batch_tokens: input should be greater than or equal to 1 (got 0)"),
        ("targets", {"kind": "online", "teacher": "smollm2", "layers": None, "score_without_prompt": False},
         "  targets.batch_tokens: is missing"),
        ("train.distilled.loss", {"kind": "jsd", "ce_weight": 0.5, "temperature": 1.0, "tail": "bucket"},
         "  train.distilled.loss.beta: is missing"),
        ("train.distilled.loss", {"kind": "forward_kl", "ce_weight": 0.5, "temperature": 1.0, "tail": None, "beta": 1},
         "  train.distilled.loss.beta: is not a known key"),
        ("weight", WEIGHTS | {"confidence": {"measure": "lowest_window_log_prob"}},
         "  weight.confidence.window: is missing"),
        ("weight", {"kind": "uniform", "strength": 1.0}, "  weight.strength: is not a known key"),
        ("generate.prompts", {"source": "folder", "path": "a", "pattern": "*", "template": "{text}"},
         "  generate.prompts.chunk_words: is missing"),
        ("teachers.0.model", "", "  teachers.0.model: string should have at least 1 character (got '')"),
        ("targets", TOP_K_WITHOUT_BATCH, "  targets.batch_tokens: is missing"),
        ("targets.layers", [3, 3], "  targets: layers: must name each layer once, in ascending order, got [3, 3]"),
    ],
)  # fmt: skip
def test_a_path_has_the_keys_of_the_file_alone(path, value, line):
    """Pydantic's location has the name of a union's member too, which no user knows."""
    assert refusal(changed((path, value))).splitlines()[1:-1] == [line]


def test_a_message_fits_one_screen():
    value = {name: {f"key{number}": 1 for number in range(60)} for name in SHIPPED}
    assert len(refusal(value).splitlines()) <= 24


def test_a_key_in_the_url_of_an_endpoint_is_refusal():
    value = copy.deepcopy(SHIPPED)
    value["teachers"].append(api_teacher("https://user:secret@host/v1"))
    assert "teachers.1.base_url" in refusal(value)


def test_several_samples_of_a_greedy_teacher_are_refusal():
    value = copy.deepcopy(SHIPPED)
    value["generate"]["num_samples"] = 3
    assert "generate: num_samples: must be 1 with sampling_temperature 0, got 3" in refusal(value)


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_a_file_that_is_no_mapping_is_refusal(value):
    assert "must be a mapping" in refusal(value)


@pytest.mark.parametrize("text", ["a: [1", "\x00", "a:\n\t- b"])
def test_a_file_that_is_no_yaml_is_refusal(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml is not YAML"):
        load_params()


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"params\.yaml is missing"):
        load_params()


def leaves(value: object, path: tuple = ()) -> list[tuple]:
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in leaves(part, (*path, key))]
    return [path]


JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(leaves(SHIPPED)), JUNK)
def test_junk_anywhere_gives_at_most_one_message(path, junk):
    value = copy.deepcopy(SHIPPED)
    section = value
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = junk
    try:
        check_params(value)
    except UserError as error:
        assert len(str(error).splitlines()) <= 24
