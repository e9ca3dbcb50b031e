"""What asking will take, before anything is sent."""

from pathlib import Path

from distill import probe
from distill.answers import Request, Sampling
from distill.asking import journal, journal_path
from distill.budget import Budget, cost, likely_prompt_tokens, most_prompt_tokens
from distill.params import Teacher

LINE = "{:<16} {:>9} {:>9} {:>14} {:>18} {:>12} {:>12}"


def estimate(asked: list[tuple[Teacher, list[Request]]], sampling: Sampling, budget: Budget, folder: Path) -> str:
    """A table by teacher: requests left to send, with the probe's, prompt tokens (of usual text), completion tokens
    (at most), cost with these, and the cost that a budget must hold (at most a token for a byte of the prompt)."""
    heads = ("teacher", "answered", "to send", "prompt tokens", "completion tokens", "USD, about", "USD, at most")
    lines = [LINE.format(*heads)]
    about = most = 0.0
    for teacher, requests in asked:
        answered: set[str] = set()
        probed = True
        if journal_path(teacher, folder).exists():
            with journal(teacher, folder) as known:
                answered = {item.id for item in requests if item.id in known.answered}
                probed = teacher.kind == "local" or probe.facts(teacher, known) is not None
        elif teacher.kind == "openai":
            probed = False
        todo = [(item, sampling.max_tokens) for item in requests if item.id not in answered]
        if todo and not probed and teacher.kind == "openai":
            todo += [(item, probe.TOKENS) for item in probe.requests(teacher, True).values()]
        tokens = {
            "prompt_tokens": sum(likely_prompt_tokens(item.messages) for item, _ in todo),
            "completion_tokens": sum(new for _, new in todo),
        }
        bound = tokens | {"prompt_tokens": sum(most_prompt_tokens(item.messages) for item, _ in todo)}
        costs = ["0", "0"]
        if teacher.kind == "openai":
            prices = [cost(teacher.price, part) for part in (tokens, bound)]
            about, most = about + prices[0], most + prices[1]
            costs = ["unknown"] * 2 if teacher.price is None else [f"{value:.4f}" for value in prices]
        lines.append(LINE.format(teacher.name, len(answered), len(todo), *tokens.values(), *costs))
    limit = "none" if budget.limit is None else f"{budget.limit:g} USD"
    lines.append(f"all: about {about:.4f} USD, at most {most:.4f}; spent so far {budget.spent:.4f}; budget {limit}")
    return "\n".join(lines)
