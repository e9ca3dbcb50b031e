"""Divergences between teacher and student: the formulas, on log-probabilities of the same outcomes.

P is the teacher and S the student, both at one temperature; a divergence is summed over the outcomes, in nats.
`student` and `teacher` are [..., outcomes] log-probabilities, the result is [...]. `beta` is the teacher's part in a
mixture M = beta P + (1 - beta) S and has no effect elsewhere.
"""

import math
from collections.abc import Callable

import torch


def forward_kl(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """KL(P || S), [..., outcomes] log-probabilities to [...] nats."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """KL(S || P), as in MiniLLM (Gu et al. 2024)."""
    return (student.exp() * (student - teacher)).sum(-1)


def jsd(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """beta KL(P || M) + (1 - beta) KL(S || M) with M = beta P + (1 - beta) S, as in GKD (Agarwal et al. 2024).

    Towards beta = 0 and 1 it tends to 0 and not to the KLs (at 0.01 it is about a hundredth of one): use
    forward_kl and reverse_kl for those.
    """
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return beta * forward_kl(mixture, teacher, beta) + (1 - beta) * forward_kl(mixture, student, beta)


def skew_kl(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """KL(P || beta P + (1 - beta) S), as in DistiLLM (Ko et al. 2024)."""
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return forward_kl(mixture, teacher, beta)


def skew_reverse_kl(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """KL(S || beta P + (1 - beta) S), as in DistiLLM, whose alpha is the student's part and so 1 - beta."""
    mixture = torch.logaddexp(teacher + math.log(beta), student + math.log1p(-beta))
    return forward_kl(mixture, student, beta)


def total_variation(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """Half the sum of |P - S|, between 0 and 1, as in f-distill (Wen et al. 2023)."""
    return 0.5 * (teacher.exp() - student.exp()).abs().sum(-1)


DIVERGENCES: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
    "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "total_variation": total_variation,
}
