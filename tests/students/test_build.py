"""The initial student: its plan, its pruning in steps, what it is pruned from and loaded as."""

import pytest
import tiny
import torch

from distill.core.errors import UserError
from distill.modeling import loading
from distill.params.loading import check_params
from distill.params.teachers import LocalTeacher
from distill.students import build
from distill.students.build import StoredTargets
from distill.targets import store
from distill.targets.stored import StoredTopK

STUDENT = {"layers": 3, "intermediate_size": None, "num_key_value_heads": None, "num_train_epochs": 1}
EXPLICIT = {"init.layers": [0, 3], "init.layer_selection": "explicit"}
ROWS = [tiny.weighted(topic, f"People like {topic} so much.", 1.0) for topic in tiny.TOPICS]


def params(**changes):
    """The tiny experiment's params with these changes."""
    return check_params(tiny.params(**changes))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> LocalTeacher:
    """A folder of the tiny teacher, untrained."""
    folder = tmp_path_factory.mktemp("teacher")
    tokenizer = tiny.tokenizer()
    loading.save_model(tiny.model(len(tokenizer)), tokenizer, folder)
    return params().local_teacher("tiny").model_copy(update={"model": str(folder)})


def test_a_plan_without_intermediate_students_is_the_final_one():
    section = params().init
    assert build.pruning_plan(section, None) == [section]


def test_layers_of_a_plan_are_in_the_numbering_of_the_student_before():
    progressive = {"teacher": "original", "students": [STUDENT | {"layers": [0, 2, 3]}]}
    explicit = {key.replace(".", "__"): value for key, value in EXPLICIT.items()}
    value = params(train__progressive=progressive, **explicit)
    plan = build.pruning_plan(value.init, value.train.progressive)
    assert [size.layers for size in plan] == [[0, 2, 3], [0, 2]]  # the teacher's layer 3 is the third of the first


def test_a_pruned_student_has_the_teachers_weights(teacher):
    sizes = params(**{key.replace(".", "__"): value for key, value in EXPLICIT.items()}).init
    student = build.prune_teacher(teacher, sizes, ROWS, ROWS[:3], None)
    original, tokenizer = loading.load_model(teacher.model, torch.float32)
    assert student.record["layers"] == [0, 3]
    assert (student.record["source"], student.record["vocab_size"]) == ("tiny", 320)
    kept = tokenizer.convert_tokens_to_ids(student.tokenizer.convert_ids_to_tokens(range(320)))
    unseen = [token for row in ROWS[:3] for token in [*tokenizer(row["response"]).input_ids, tokenizer.eos_token_id]]
    covered = sum(token in kept for token in unseen) / len(unseen)
    assert 0.5 < covered < 1
    assert student.record["validation_coverage"] == round(covered, 5)
    assert torch.equal(
        student.model.get_input_embeddings().weight, original.get_input_embeddings().weight[torch.tensor(kept)]
    )
    for name in ("mlp.down_proj.weight", "self_attn.q_proj.weight"):
        assert torch.equal(
            student.model.get_parameter(f"model.layers.1.{name}"), original.get_parameter(f"model.layers.3.{name}")
        )


def test_pruning_in_two_steps_gives_the_same_student(teacher):
    progressive = {"teacher": "original", "students": [STUDENT | {"layers": [0, 2, 3]}]}
    value = params(train__progressive=progressive, init__layers=[0, 3], init__layer_selection="explicit")
    plan = build.pruning_plan(value.init, value.train.progressive)
    first = build.prune_teacher(teacher, plan[0], ROWS, ROWS[:3], None, "intermediate-1")
    both = build.prune_through(first, plan, ROWS)
    once = build.prune_teacher(teacher, value.init, ROWS, ROWS[:3], None)
    assert first.record["layers"] == [0, 2, 3]
    assert both.record == once.record
    assert both.model.state_dict().keys() == once.model.state_dict().keys()
    assert all(torch.equal(weight, once.model.state_dict()[name]) for name, weight in both.model.state_dict().items())


def test_a_student_as_large_as_the_one_before_is_refused(teacher):
    sizes = params(init__layers=2).init
    student = build.prune_teacher(teacher, sizes, ROWS, ROWS[:3], None)
    with pytest.raises(UserError, match=r"train\.progressive: intermediate-2 has .* each must be smaller"):
        build.prune_again(student, sizes, ROWS, "intermediate-2")


def test_stored_targets_count_for_the_vocabulary(teacher, tmp_path):
    tokenizer = loading.load_teacher_tokenizer(teacher)
    found = StoredTargets.find(tmp_path, params(targets__top_k=2).targets, [teacher], torch.float32)
    assert found is not None
    ids = torch.tensor([[5, 9]], dtype=torch.int32)
    rows = {row["id"]: StoredTopK(ids, torch.tensor([[0.75, 0.25]]).log().half(), torch.zeros(1)) for row in ROWS}
    store.write_targets(tmp_path, found.source(tokenizer, ROWS), rows.items())
    pairs = list(build.expected_tokens(found, ROWS, tokenizer))
    assert len(pairs) == len(ROWS)
    for token_ids, counts in pairs:
        assert token_ids.tolist() == [5, 9]
        assert counts.tolist() == pytest.approx([0.75, 0.25], abs=1e-3)


def test_without_logit_distillation_there_are_no_targets(tmp_path):
    assert StoredTargets.find(tmp_path, None, [], torch.float32) is None


def test_training_starts_from_the_first_student(tmp_path):
    tokenizer, record = tiny.tokenizer(), {"source": "tiny", "layers": [0, 3], "validation_loss": 3.0, "parameters": 9}
    for folder, layers in ((tmp_path, 2), (tmp_path / "intermediate-1", 3)):
        loading.save_model(tiny.model(len(tokenizer), layers=layers), tokenizer, folder)
    final = build.load_initial(tmp_path, record, None)
    assert final.model.config.num_hidden_layers == 2
    assert final.record == {"source": "tiny", "layers": [0, 3]}
    progressive = params(train__progressive={"teacher": "original", "students": [STUDENT]}).train.progressive
    first = build.load_initial(tmp_path, record | {"start_layers": [0, 2, 3]}, progressive)
    assert first.model.config.num_hidden_layers == 3
    assert first.record["layers"] == [0, 2, 3]
