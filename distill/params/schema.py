"""params.yaml as a whole: accepts or refuses the file, and never changes a value in it.

Because a value is either tracked by DVC as a param or refused here, this module and the sections in distill/schema
are the imports that no stage lists as a dep; otherwise a new param for plotting would re-run the teacher.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distill.params.clean import Clean
from distill.params.evaluate import Evaluate
from distill.params.fields import Count, Section
from distill.params.generate import Generate
from distill.params.plot import Plot
from distill.params.teachers import Teacher
from distill.params.train import Train
from distill.params.weight import Targets, Weight


class Runtime(Section):
    """What the bytes of a result depend on beside the data: docs/reproducibility.md#the-same-bytes."""

    threads: Count
    dtype: Literal["auto", "bfloat16", "float32"]


Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed
    seeds: Annotated[list[Seed], Field(min_length=1)]
    runtime: Runtime
    teachers: Annotated[list[Teacher], Field(min_length=1)]
    generate: Generate
    clean: Clean
    weight: Weight
    train: Train
    evaluate: Evaluate
    plot: Plot

    @model_validator(mode="after")
    def _teachers_exist(self) -> Self:
        if len(self.seeds) != len(set(self.seeds)):
            raise ValueError(f"seeds: two are the same, given {self.seeds}")
        names = [teacher.name for teacher in self.teachers]
        if len(names) != len(set(names)):
            raise ValueError(f"teachers: two have the same name, given {names}")
        if not any(teacher.prompt_fraction for teacher in self.teachers):
            raise ValueError(
                "teachers: every prompt_fraction is 0, so no teacher responds to a prompt. Set at least one above 0."
            )
        helpers = {"generate.mixture.judge": self.generate.mixture.judge}
        helpers["generate.mixture.aggregator"] = self.generate.mixture.aggregator
        if self.generate.self_instruct is not None:
            helpers["generate.self_instruct.teacher"] = self.generate.self_instruct.teacher
        for key, helper in helpers.items():
            if helper is not None and helper not in names:
                raise ValueError(f"{key}: must be one of `teachers` ({names}), given {helper!r}")
        local = [teacher.name for teacher in self.teachers if teacher.kind == "local" and teacher.chat_template is None]
        asked = {"evaluate.teacher": self.evaluate.teacher}
        if self.train.student.source == "teacher":
            asked["train.student.teacher"] = self.train.student.teacher
        for key, name in asked.items():
            if name not in local:
                raise ValueError(
                    f"{key}: must be a local teacher of `teachers` with its own chat template ({local}), given {name!r}"
                )
        if self.weight.targets is not None:
            self._targets_can_be_had(self.weight.targets)
        if (
            self.weight.targets is None
            and self.generate.class_labels is None
            and self.train.distilled.loss != "cross_entropy"
        ):
            raise ValueError(
                f"train.distilled.loss: {self.train.distilled.loss} needs stored targets, but weight.targets is null"
            )
        if self.weight.targets is not None and self.weight.targets.kind == "sampled":
            given = self.train.distilled
            if given.loss not in ("cross_entropy", "forward_kl") or given.temperature != 1 or given.tail != "bucket":
                raise ValueError(
                    "weight.targets.kind: sampled gives the mean of the true gradient only with train.distilled of "
                    "loss forward_kl, temperature 1 and tail bucket, "
                    f"given {given.loss}, {given.temperature:g} and {given.tail}; other losses need stored, hidden or "
                    "online"
                )
        if self.weight.targets is not None and self.weight.targets.kind == "on_policy":
            share = self.train.distilled.cross_entropy_share
            if share:
                raise ValueError(
                    "train.distilled.cross_entropy_share: must be 0 with weight.targets.kind on_policy, since on the "
                    f"student's own text it would teach it its own mistakes, given {share:g}"
                )
        wanted = self.train.distilled.layer_loss
        if wanted is not None:
            missing = sorted({teacher for teacher, _ in wanted.pairs} - set(self.weight.layers or []))
            if missing:
                raise ValueError(
                    f"train.distilled.layer_loss.pairs: layers {missing} of the teacher are not stored; "
                    f"weight.layers must list them, given {self.weight.layers}"
                )
            if self.weight.targets is not None and self.weight.targets.kind == "on_policy":
                raise ValueError(
                    "train.distilled.layer_loss: must be null with weight.targets.kind on_policy, since no hidden "
                    "states are stored for the student's own text"
                )
        if self.generate.class_labels is not None:
            self._require_what_labels_go_with()
        unpriced = [teacher.name for teacher in self.teachers if teacher.kind == "openai" and teacher.price is None]
        if self.generate.budget_usd is not None and unpriced:
            raise ValueError(
                f"generate.budget_usd: cannot be kept, since the price of {unpriced} is null; give prices or no budget"
            )
        parts = sum(teacher.prompt_fraction for teacher in self.teachers if teacher.prompt_fraction < 1)
        if parts > 1 + 1e-9:
            raise ValueError(
                f"teachers: prompt_fractions below 1 divide the prompts and must add up to at most 1, got {parts:g}"
            )
        return self

    def _require_what_labels_go_with(self) -> None:
        """Raises ValueError where a choice says something of texts or tokens, which labels have no use for."""
        others = [
            teacher.name
            for teacher in self.teachers
            if teacher.prompt_fraction and (teacher.kind != "local" or teacher.chat_template is not None)
        ]
        if others:
            raise ValueError(
                "generate.class_labels: each label is scored by the teacher's probabilities, so every teacher that "
                f"responds must be local with its own chat template, got {others}. Set their prompt_fraction to 0."
            )
        if self.weight.targets is not None:
            raise ValueError(
                "weight.targets: must be null with generate.class_labels, since the rows have the labels' probabilities"
            )
        if self.train.rounds is not None or (self.train.ladder is not None and self.train.ladder.teacher == "above"):
            raise ValueError(
                "train: with generate.class_labels students learn from the teacher's responses alone: rounds must be "
                "null, and ladder.teacher original"
            )

    def _targets_can_be_had(self, wanted: Targets) -> None:
        """Raises ValueError where their teacher is no local one, or a base model that cannot give this kind."""
        local = {teacher.name: teacher for teacher in self.teachers if teacher.kind == "local"}
        if wanted.teacher not in local:
            raise ValueError(
                f"weight.targets.teacher: must be a local teacher of `teachers` ({list(local)}), given "
                f"{wanted.teacher!r}"
            )
        if local[wanted.teacher].chat_template is None:
            return
        if wanted.kind != "stored":
            raise ValueError(
                f"weight.targets.kind: must be stored for teacher {wanted.teacher!r}, a base model (chat_template: "
                f"few_shot) whose answers end otherwise than the student's, given {wanted.kind}"
            )
        if self.weight.layers is not None:
            raise ValueError(
                f"weight.layers: must be null for teacher {wanted.teacher!r} of weight.targets, a base model "
                f"(chat_template: few_shot) that reads another prompt than the student, given {self.weight.layers}"
            )
