import re

import pytest
import tiny

from distill.core.errors import UserError
from distill.params import schema
from distill.params.loading import check_params
from distill.students.build import pruning_plan
from distill.training.plan import plan_phases

STUDENT = {"layers": 3, "intermediate_size": None, "num_key_value_heads": None, "num_train_epochs": 1}
PROGRESSIVE = {"teacher": "previous", "students": [STUDENT]}
PRETRAINED = {"source": "pretrained", "model": "m", "revision": None, "license": None}
GENERATIONS = {"num_generations": 3, "start": "previous", "ema_decay": None}
CROSS_ENTROPY = {"kind": "cross_entropy"}


def sections(**changes: object) -> schema.Params:
    return check_params(tiny.params(**changes))


def test_intermediate_layers_are_numbered_in_the_student_before():
    students = [STUDENT | {"layers": [0, 1, 2, 3]}, STUDENT | {"layers": [0, 1, 3]}]
    params = sections(
        init__layers=[0, 3], init__layer_selection="explicit", train__progressive=PROGRESSIVE | {"students": students}
    )
    plan = pruning_plan(params.init, params.train.progressive)
    assert [sizes.layers for sizes in plan] == [[0, 1, 2, 3], [0, 1, 3], [0, 2]]
    assert [sizes.layers for sizes in pruning_plan(params.init, None)] == [[0, 3]]


@pytest.mark.parametrize(("teacher", "by_student"), [("previous", True), ("original", False)])
def test_intermediate_students_come_before_generations(teacher, by_student):
    students = [STUDENT | {"layers": 4, "num_train_epochs": 5}, STUDENT]
    section = {"teacher": teacher, "students": students}
    params = sections(train__progressive=section, train__self_distillation=GENERATIONS)
    plan = plan_phases(pruning_plan(params.init, params.train.progressive), params.train)
    assert [(phase.name, phase.epochs, phase.start, phase.teacher_is_student) for phase in plan] == [
        ("intermediate-1", 5, "pruned", False),  # only the original teacher is before it
        ("intermediate-2", 1, "pruned", by_student),
        ("generation-1", 2, "pruned", by_student),
        ("generation-2", 2, "previous", True),
        ("generation-3", 2, "previous", True),
    ]
    assert [phase.sizes.layers for phase in plan[:3]] == [4, 3, 2]
    params = sections()
    (phase,) = plan_phases(pruning_plan(params.init, None), params.train)
    assert (phase.name, phase.teacher_is_student) == ("student", False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train__progressive": PROGRESSIVE | {"students": [STUDENT, STUDENT | {"layers": 4}]}},
         "train.progressive.students.1.layers: must be at most 3, that of the student before it, got 4"),
        ({"train__progressive": PROGRESSIVE | {"students": [STUDENT | {"layers": 1}]}},
         "init.layers: must be at most 1, that of the student before it, got 2"),
        ({"train__progressive": PROGRESSIVE | {"students": []}},
         "train.progressive.students: list should have at least 1"),
        ({"train__progressive": PROGRESSIVE, "init": PRETRAINED}, "train.progressive: needs init.source pruned"),
        ({"train__progressive": PROGRESSIVE, "train__distilled__loss": CROSS_ENTROPY},
         "train: progressive.teacher: previous needs a distilled.loss"),
        ({"train__self_distillation": GENERATIONS, "train__distilled__loss__ce_weight": 1.0},
         "train: self_distillation: needs a distilled.loss"),
        ({"train__self_distillation": GENERATIONS | {"num_generations": 1}},
         "train.self_distillation.num_generations: input should be greater than or equal to 2"),
        ({"train__self_distillation": GENERATIONS | {"ema_decay": 1.0}},
         "train.self_distillation.ema_decay: input should be less than 1"),
    ],
)  # fmt: skip
def test_phases_without_effect_are_refused(changes, words):
    with pytest.raises(UserError, match=re.escape(words)):
        sections(**changes)
