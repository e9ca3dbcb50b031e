"""Plan the phases of training: intermediate students, then the final student, in generations if it teaches itself.

A student much smaller than its teacher learns more through students between the two (Mirzadeh et al. 2020, teacher
assistants): each is pruned from the trained one before it. In self-distillation the student of one generation teaches
the next (Furlanello et al. 2018, born-again networks).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distill.modeling.sampling import request_seed
from distill.params.init import PrunedStudent
from distill.params.train import Train
from distill.students.build import FINAL, INTERMEDIATE

GENERATION = "generation-"


@dataclass(frozen=True)
class Phase:
    """One training, of an intermediate student or of the final one.

    `start`: the model is pruned to `sizes` from the one of the phase before (the first phase starts from the initial
    student), is that one (previous), or the final student before its first training (initial). `teacher_is_student`:
    the teacher is the model of the phase before, or its average.
    """

    name: str
    epochs: int
    start: Literal["pruned", "previous", "initial"]
    sizes: PrunedStudent | None
    teacher_is_student: bool

    @property
    def is_final(self) -> bool:
        """Whether it trains the final student."""
        return not self.name.startswith(INTERMEDIATE)

    def seed(self, seed: int) -> int:
        """Its training seed: the run's own for the final student's first training, else one drawn from it."""
        return seed if self.name in (FINAL, f"{GENERATION}1") else request_seed(seed, self.name)


def plan_phases(plan: Sequence[PrunedStudent], train: Train) -> list[Phase]:
    """The phases in their order. `plan` is `pruning_plan`, empty for a pretrained student."""
    progressive, generations = train.progressive, train.self_distillation
    sizes = plan[-1] if plan else None
    by_student = progressive is not None and progressive.teacher == "previous"
    phases: list[Phase] = []
    for student, kept in zip(progressive.students if progressive else [], plan, strict=False):
        name = f"{INTERMEDIATE}{len(phases) + 1}"
        phases.append(Phase(name, student.num_train_epochs, "pruned", kept, bool(phases) and by_student))
    epochs, taught = train.optimization.num_train_epochs, bool(phases) and by_student
    if generations is None:
        return [*phases, Phase(FINAL, epochs, "pruned", sizes, taught)]
    phases.append(Phase(f"{GENERATION}1", epochs, "pruned", sizes, taught))
    return phases + [
        Phase(f"{GENERATION}{number}", epochs, generations.start, None, True)
        for number in range(2, generations.num_generations + 1)
    ]
