"""The whole of params.yaml: all sections. The rules between them are in rules.py."""

from typing import Annotated, Literal

from pydantic import Field

from distill.params.clean import Clean
from distill.params.evaluate import Evaluate
from distill.params.fields import Section
from distill.params.generate import Generate
from distill.params.init import Init
from distill.params.plot import Plot
from distill.params.targets import Targets
from distill.params.teachers import LocalTeacher, Teacher
from distill.params.train import Train
from distill.params.weight import Weight

Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Runtime(Section):
    """What the bytes of a result depend on in addition to the data: docs/reproducibility.md#the-same-bytes."""

    threads: Annotated[int, Field(ge=1, le=1024)]
    dtype: Literal["auto", "bfloat16", "float32"]


class Params(Section):
    """The whole of params.yaml."""

    data_seed: Seed
    training_seeds: Annotated[list[Seed], Field(min_length=1)]
    runtime: Runtime
    teachers: Annotated[list[Teacher], Field(min_length=1)]
    generate: Generate
    clean: Clean
    targets: Targets | None
    weight: Weight
    init: Init
    train: Train
    evaluate: Evaluate
    plot: Plot

    def local_teacher(self, name: str) -> LocalTeacher:
        """The local teacher of this name. The rules have checked that there is one."""
        return next(teacher for teacher in self.teachers if teacher.name == name and teacher.kind == "local")
