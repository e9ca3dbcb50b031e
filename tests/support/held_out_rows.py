"""Rows of a held-out split, and their lm-eval documents for a model."""

from distill.evaluation import text_responses
from distill.evaluation.held_out import HeldOut


def row(number: int, response: str, topic: str = "ants") -> dict:
    messages = [{"role": "user", "content": f"What is {topic} {number}?"}]
    return {
        "id": f"r{number}", "prompt_id": f"p{number}", "topic": topic, "messages": messages, "response": response,
        "finish_reason": "stop",
    }  # fmt: skip


ROWS = [row(0, "the quick ants"), row(1, "a lazy dog"), row(2, "brown 😀 fox"), row(3, "What <|im_end|> is honey?")]


def documents(tokenizer, teacher_tokenizer, rows: list[dict]) -> list[dict]:
    """The documents of these rows, whose choices are the responses of all rows, the right one first."""
    choices = [([(index + shift) % len(rows) for shift in range(len(rows))], 0) for index in range(len(rows))]
    return text_responses.documents(HeldOut(rows, rows, frozenset()), choices, tokenizer, teacher_tokenizer)
