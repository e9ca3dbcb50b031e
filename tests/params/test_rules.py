import pytest
from chat_server import api_teacher
from shipped_params import HIDDEN_LOSS, ON_POLICY, SAMPLED, SHIPPED, TARGETS, WEIGHTS, changed, refusal

from distill.params.loading import check_params
from distill.params.rules import RULES

TEACHER = SHIPPED["teachers"][0]
BASE = TEACHER | {"name": "base", "chat_template": "few_shot", "prompt_fraction": 0.0}
PRETRAINED = {"source": "pretrained", "model": "m", "revision": None, "license": None}
ADAPTER = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear", "quantization": None}
JUDGED = {"policy": "best_of_n", "judge": "nobody", "aggregator": None}
FUSED = {"policy": "fuse", "judge": None, "aggregator": "nobody"}
WRITER = {
    "teacher": "nobody", "num_rounds": 1, "requests_per_round": 1, "examples_per_request": 1, "max_rouge_l": 0.7,
    "max_new_tokens": 8, "sampling_temperature": 1.0, "top_p": 1.0,
}  # fmt: skip
GENERATIONS = {"num_generations": 2, "start": "previous", "ema_decay": None}


def student(layers: object, **changes: object) -> dict:
    """An intermediate student."""
    return {"layers": layers, "intermediate_size": None, "num_key_value_heads": None, "num_train_epochs": 1, **changes}


def progressive(*students: dict, teacher: str = "original") -> dict:
    """Section train.progressive."""
    return {"teacher": teacher, "students": list(students)}


NUMBERS = [("init.layers", 5), ("init.layer_selection", "uniform")]

CASES = {  # for each rule, changes of the shipped params and the line that they get
    "training_seeds_differ": [
        ([("training_seeds", [1, 1])], "training_seeds: two are the same, got [1, 1]"),
    ],
    "teachers_divide_the_prompts": [
        ([("teachers", [TEACHER, TEACHER])], "teachers: two have the same name, got ['smollm2', 'smollm2']"),
        ([("teachers.0.prompt_fraction", 0.0)], "teachers: prompt_fraction must be above 0 for one of them"),
        ([("teachers", [TEACHER | {"prompt_fraction": 0.6, "name": name} for name in ("smollm2", "other")])],
         "teachers: prompt_fractions below 1 divide the prompts and must add up to at most 1, got 1.2"),
    ],
    "named_teachers_exist": [
        ([("generate.mixture", JUDGED)],
         "generate.mixture.judge: must be one of `teachers` (['smollm2']), got 'nobody'"),
        ([("generate.mixture", FUSED)], "generate.mixture.aggregator: must be one of `teachers`"),
        ([("generate.self_instruct", WRITER)], "generate.self_instruct.teacher: must be one of `teachers`"),
    ],
    "local_teachers_are_local": [
        ([("init.teacher", "nobody")],
         "init.teacher: must be a local teacher of `teachers` with its own chat template"),
        ([("evaluate.teacher", "nobody")], "evaluate.teacher: must be a local teacher of `teachers`"),
    ],
    "targets_have_a_teacher": [
        ([("targets.teacher", "nobody")], "targets.teacher: must be a local teacher of `teachers` (['smollm2'])"),
        ([("teachers", [TEACHER, BASE]), ("targets", SAMPLED | {"teacher": "base"}),
          ("train.distilled.loss.tail", None)],
         "targets.kind: must be top_k for teacher 'base', a base model (chat_template: few_shot)"),
        ([("teachers", [TEACHER, BASE]), ("targets.teacher", "base"), ("targets.layers", [3])],
         "targets.layers: must be null for teacher 'base'"),
    ],
    "losses_have_their_targets": [
        ([("targets", None), ("train.distilled.loss.tail", None)],
         "train.distilled.loss: forward_kl needs targets, but `targets` is null"),
        ([("targets", ON_POLICY), ("train.distilled.loss.tail", None)],
         "train.distilled.loss.ce_weight: must be 0 with targets.kind on_policy"),
        ([("train.distilled.loss.tail", None)],
         "train.distilled.loss.tail: must be bucket or renormalise with targets top_k, got null"),
        ([("targets", TARGETS | {"kind": "online"})], "train.distilled.loss.tail: must be null with targets online"),
    ],
    "hidden_losses_have_stored_layers": [
        ([("train.distilled.hidden_loss", HIDDEN_LOSS)],
         "train.distilled.hidden_loss.layer_pairs: layers [20] of the teacher are not stored; targets.layers must"),
    ],
    "confidence_has_its_pass": [
        ([("weight", WEIGHTS | {"confidence": {"measure": "ifd"}})],
         "weight.confidence.measure: ifd needs `targets` with score_without_prompt: true"),
    ],
    "class_labels_need_no_targets": [
        ([("generate.class_labels", ["good", "bad"])], "targets: must be null with generate.class_labels"),
        ([("generate.class_labels", ["good", "bad"]), ("targets", None), ("train.distilled.loss.tail", None),
          ("train.self_distillation", GENERATIONS)],
         "train: with generate.class_labels students learn from the teacher's responses alone"),
        ([("generate.class_labels", ["good", "bad"]), ("targets", None), ("train.distilled.loss.tail", None),
          ("teachers", [TEACHER, BASE | {"prompt_fraction": 1.0}])],
         "generate.class_labels: labels are scored by the teacher's probabilities; every teacher that responds must"),
    ],
    "budgets_have_prices": [
        ([("teachers", [TEACHER, api_teacher("http://host/v1")]), ("generate.budget_usd", 5)],
         "generate.budget_usd: cannot be kept, since the price of ['api'] is null"),
    ],
    "adapters_have_a_pretrained_base": [
        ([("train.adapter", ADAPTER)], "train.adapter: needs init.source pretrained"),
    ],
    "progressive_students_shrink": [
        ([("init", PRETRAINED), ("train.progressive", progressive(student(5)))],
         "train.progressive: needs init.source pruned, got pretrained"),
        ([("train.progressive", progressive(student(5)))],
         "train.progressive.students.0.layers: init.layer_selection explicit goes with lists of layers"),
        ([*NUMBERS, ("train.progressive", progressive(student([0, 1])))],
         "train.progressive.students.0.layers: init.layer_selection uniform goes with numbers of layers"),
        ([*NUMBERS, ("train.progressive", progressive(student(4)))],
         "init.layers: must be at most 4, that of the student before it, got 5"),
        ([*NUMBERS, ("train.progressive", progressive(student(6), student(7)))],
         "train.progressive.students.1.layers: must be at most 6, that of the student before it, got 7"),
        ([*NUMBERS,
          ("train.progressive", progressive(student(6, intermediate_size=8), student(6, intermediate_size=9)))],
         "train.progressive.students.1.intermediate_size: must be at most 8, that of the student before it, got 9"),
        ([("train.progressive", progressive(student([0, 1, 21, 24])))],
         "init.layers: must be among the layers [0, 1, 21, 24] of the student before it, got [0, 1, 21, 24, 29] with"),
    ],
}  # fmt: skip


def test_every_rule_has_a_case():
    assert list(CASES) == [rule.__name__ for rule in RULES]


@pytest.mark.parametrize(("changes", "words"), [case for cases in CASES.values() for case in cases])
def test_a_broken_rule_is_reported_with_its_path(changes, words):
    lines = refusal(changed(*changes)).splitlines()
    assert any(line.startswith(f"  {words}") for line in lines), lines
    assert lines[0] == "params.yaml has 1 mistake:", lines


def test_several_broken_rules_are_all_reported():
    message = refusal(changed(("training_seeds", [1, 1]), ("evaluate.teacher", "nobody"), ("train.adapter", ADAPTER)))
    assert message.splitlines()[0] == "params.yaml has 3 mistakes:"
    for words in ("training_seeds: two are the same", "evaluate.teacher: must be", "train.adapter: needs"):
        assert f"  {words}" in message


def test_a_priced_teacher_may_have_a_budget():
    priced = api_teacher("http://host/v1") | {"price": {"prompt": 0.5, "completion": 2}}
    params = check_params(changed(("teachers", [TEACHER, priced]), ("generate.budget_usd", 5)))
    assert params.generate.budget_usd == 5


def test_on_policy_targets_are_accepted_without_cross_entropy():
    loss = {"kind": "forward_kl", "ce_weight": 0.0, "temperature": 1.0, "tail": None}
    assert check_params(changed(("targets", ON_POLICY), ("train.distilled.loss", loss))).targets.kind == "on_policy"


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "reverse_kl", "ce_weight": 0.5, "temperature": 1.0, "tail": None},
        {"kind": "forward_kl", "ce_weight": 0.5, "temperature": 2.0, "tail": None},
        {"kind": "forward_kl", "ce_weight": 0.5, "temperature": 1.0, "tail": "renormalise"},
    ],
)
def test_sampled_targets_are_refused_with_a_biased_loss(loss):
    unbiased = {"kind": "forward_kl", "ce_weight": 0.5, "temperature": 1.0, "tail": None}
    assert check_params(changed(("targets", SAMPLED), ("train.distilled.loss", unbiased))).targets.kind == "sampled"
    message = refusal(changed(("targets", SAMPLED), ("train.distilled.loss", loss)))
    words = "loss.tail: must be null" if loss["tail"] else "only with kind forward_kl and temperature 1"
    assert words in message


def test_stored_layers_serve_a_hidden_loss_and_on_policy_targets_store_none():
    pruned = [("targets.layers", [3, 20]), ("train.distilled.hidden_loss", HIDDEN_LOSS)]
    assert check_params(changed(*pruned)).train.distilled.hidden_loss.layer_pairs == [[20, 1]]
    message = refusal(changed(("targets", ON_POLICY | {"layers": [3]})))
    assert "targets.layers: input should be None" in message
    loss = {"kind": "forward_kl", "ce_weight": 0.0, "temperature": 1.0, "tail": None}
    without = changed(("targets", ON_POLICY), ("train.distilled", {"loss": loss, "hidden_loss": HIDDEN_LOSS}))
    assert "On-policy targets store none" in refusal(without)
    layerless = changed(
        ("targets", None), ("train.distilled", {"loss": {"kind": "cross_entropy"}, "hidden_loss": HIDDEN_LOSS})
    )
    assert "layers [20] of the teacher are not stored" in refusal(layerless)


def test_ifd_without_targets_is_refused():
    value = changed(
        ("targets", None), ("train.distilled.loss", {"kind": "cross_entropy"}),
        ("weight", WEIGHTS | {"confidence": {"measure": "ifd"}}),
    )  # fmt: skip
    assert "ifd needs `targets` with score_without_prompt: true" in refusal(value)
