"""The rules between the sections of params.yaml: each yields its mistakes, with the dotted path first."""

from collections.abc import Callable, Iterator
from itertools import pairwise, product

from distill.params.init import PrunedStudent
from distill.params.schema import Params
from distill.params.train import IntermediateStudent

Mistakes = Iterator[str]
SIZES = ("layers", "intermediate_size", "num_key_value_heads")


def training_seeds_differ(params: Params) -> Mistakes:
    """No training seed stands twice."""
    if len(params.training_seeds) != len(set(params.training_seeds)):
        yield f"training_seeds: two are the same, got {params.training_seeds}"


def teachers_divide_the_prompts(params: Params) -> Mistakes:
    """Teachers have names of their own, and their fractions can be given."""
    names = [teacher.name for teacher in params.teachers]
    if len(names) != len(set(names)):
        yield f"teachers: two have the same name, got {names}"
    if not any(teacher.prompt_fraction for teacher in params.teachers):
        yield "teachers: prompt_fraction must be above 0 for one of them, or no teacher responds to the prompts"
    total = sum(teacher.prompt_fraction for teacher in params.teachers if teacher.prompt_fraction < 1)
    if total > 1 + 1e-9:
        yield f"teachers: prompt_fractions below 1 divide the prompts and must add up to at most 1, got {total:g}"


def named_teachers_exist(params: Params) -> Mistakes:
    """Judge, aggregator and the writer of prompts are among the teachers."""
    names = [teacher.name for teacher in params.teachers]
    mixture, writer = params.generate.mixture, params.generate.self_instruct
    auxiliary = {"generate.mixture.judge": mixture.judge, "generate.mixture.aggregator": mixture.aggregator}
    if writer is not None:
        auxiliary["generate.self_instruct.teacher"] = writer.teacher
    for key, name in auxiliary.items():
        if name is not None and name not in names:
            yield f"{key}: must be one of `teachers` ({names}), got {name!r}"


def local_teachers_are_local(params: Params) -> Mistakes:
    """The teacher that is pruned, and the one that students are compared with, are local chat models."""
    local = [teacher.name for teacher in params.teachers if teacher.kind == "local" and teacher.chat_template is None]
    required = {"evaluate.teacher": params.evaluate.teacher}
    if params.init.source == "pruned":
        required["init.teacher"] = params.init.teacher
    for key, name in required.items():
        if name not in local:
            yield f"{key}: must be a local teacher of `teachers` with its own chat template ({local}), got {name!r}"


def targets_have_a_teacher(params: Params) -> Mistakes:
    """The teacher of targets is local, and a base model gives top_k targets only."""
    targets = params.targets
    if targets is None:
        return
    local = {teacher.name: teacher for teacher in params.teachers if teacher.kind == "local"}
    if targets.teacher not in local:
        yield f"targets.teacher: must be a local teacher of `teachers` ({list(local)}), got {targets.teacher!r}"
    elif local[targets.teacher].chat_template is not None:
        base = f"teacher {targets.teacher!r}, a base model (chat_template: few_shot)"
        if targets.kind != "top_k":
            yield f"targets.kind: must be top_k for {base}, whose responses end otherwise, got {targets.kind}"
        if targets.layers is not None:
            yield f"targets.layers: must be null for {base}, which reads another prompt, got {targets.layers}"


def losses_have_their_targets(params: Params) -> Mistakes:
    """The distillation loss can be computed from the kind of targets."""
    targets, loss = params.targets, params.train.distilled.loss
    if loss.kind == "cross_entropy":
        return
    key = "train.distilled.loss"
    if targets is None:
        if params.generate.class_labels is None:
            yield f"{key}: {loss.kind} needs targets, but `targets` is null"
    elif targets.kind == "sampled" and (loss.kind != "forward_kl" or loss.temperature != 1):
        yield (
            f"{key}: sampled targets give an unbiased gradient only with kind forward_kl and temperature 1, got "
            f"{loss.kind} and {loss.temperature:g}; other losses need top_k, hidden_states or online"
        )
    elif targets.kind == "on_policy" and loss.ce_weight:
        yield (
            f"{key}.ce_weight: must be 0 with targets.kind on_policy, since cross-entropy on the student's own text "
            f"would teach it its own mistakes, got {loss.ce_weight:g}"
        )
    has_tail = targets is not None and targets.kind == "top_k"
    if has_tail != (loss.tail is not None):
        kind = "null" if targets is None else targets.kind
        allowed = "bucket or renormalise" if has_tail else "null"
        yield f"{key}.tail: must be {allowed} with targets {kind}, got {loss.tail or 'null'}"


def hidden_losses_have_stored_layers(params: Params) -> Mistakes:
    """The teacher's layers of a hidden loss are stored."""
    hidden, targets = params.train.distilled.hidden_loss, params.targets
    if hidden is None:
        return
    stored = [] if targets is None else targets.layers or []
    if missing := sorted({teacher for teacher, _ in hidden.layer_pairs} - set(stored)):
        yield (
            f"train.distilled.hidden_loss.layer_pairs: layers {missing} of the teacher are not stored; targets.layers "
            f"must list them, got {stored or 'null'}. On-policy targets store none"
        )


def confidence_has_its_pass(params: Params) -> Mistakes:
    """The confidence measures of the teacher's pass have one."""
    if params.weight.kind == "uniform" or params.weight.confidence.measure != "ifd":
        return
    if params.targets is None or not params.targets.score_without_prompt:
        yield "weight.confidence.measure: ifd needs `targets` with score_without_prompt: true"


def class_labels_need_no_targets(params: Params) -> Mistakes:
    """With class labels no choice is about texts or tokens."""
    if params.generate.class_labels is None:
        return
    others = [
        teacher.name
        for teacher in params.teachers
        if teacher.prompt_fraction and (teacher.kind != "local" or teacher.chat_template is not None)
    ]
    if others:
        yield (
            "generate.class_labels: labels are scored by the teacher's probabilities; every teacher that responds "
            f"must be local with its own chat template, got {others}; set their prompt_fraction to 0"
        )
    if params.targets is not None:
        yield "targets: must be null with generate.class_labels, since the rows hold the probabilities of labels"
    progressive = params.train.progressive
    if params.train.self_distillation is not None or (progressive is not None and progressive.teacher == "previous"):
        yield (
            "train: with generate.class_labels students learn from the teacher's responses alone; self_distillation "
            "must be null and progressive.teacher original"
        )


def budgets_have_prices(params: Params) -> Mistakes:
    """A budget can be kept."""
    unpriced = [teacher.name for teacher in params.teachers if teacher.kind == "openai" and teacher.price is None]
    if params.generate.budget_usd is not None and unpriced:
        yield f"generate.budget_usd: cannot be kept, since the price of {unpriced} is null; give prices or no budget"


def adapters_have_a_pretrained_base(params: Params) -> Mistakes:
    """LoRA trains a pretrained student."""
    if params.train.adapter is not None and params.init.source != "pretrained":
        yield "train.adapter: needs init.source pretrained, since a pruned student is trained whole; set it to null"


def progressive_students_shrink(params: Params) -> Mistakes:
    """Each intermediate student is pruned from the one before it, and the final student from the last."""
    progressive, final = params.train.progressive, params.init
    if progressive is None:
        return
    if final.source != "pruned":
        yield "train.progressive: needs init.source pruned, got pretrained; set it to null"
        return
    names = [*(f"train.progressive.students.{number}" for number in range(len(progressive.students))), "init"]
    students: list[IntermediateStudent | PrunedStudent] = [*progressive.students, final]
    explicit = final.layer_selection == "explicit"
    for name, student in zip(names, students, strict=True):
        if isinstance(student.layers, list) != explicit:
            yield (
                f"{name}.layers: init.layer_selection {final.layer_selection} goes with "
                f"{'lists' if explicit else 'numbers'} of layers for every student, got {student.layers}; set "
                "train.progressive to null for a student without intermediate ones"
            )
            return
    for (name, (larger, smaller)), size in product(zip(names[1:], pairwise(students), strict=True), SIZES):
        yield from _not_smaller(f"{name}.{size}", getattr(larger, size), getattr(smaller, size))


def _not_smaller(key: str, larger: int | list[int] | None, smaller: int | list[int] | None) -> Mistakes:
    """The mistake of a student that keeps more than the one that it is pruned from; None is all."""
    if isinstance(larger, list) and isinstance(smaller, list):
        if others := sorted(set(smaller) - set(larger)):
            yield f"{key}: must be among the layers {larger} of the student before it, got {smaller} with {others}"
    elif isinstance(larger, int) and isinstance(smaller, int) and smaller > larger:
        yield f"{key}: must be at most {larger}, that of the student before it, got {smaller}"


RULES: tuple[Callable[[Params], Mistakes], ...] = (
    training_seeds_differ,
    teachers_divide_the_prompts,
    named_teachers_exist,
    local_teachers_are_local,
    targets_have_a_teacher,
    losses_have_their_targets,
    hidden_losses_have_stored_layers,
    confidence_has_its_pass,
    class_labels_need_no_targets,
    budgets_have_prices,
    adapters_have_a_pretrained_base,
    progressive_students_shrink,
)
