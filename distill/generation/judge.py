"""A teacher as the judge of answers: one rating from 1 to 10 for each (single-answer grading, Zheng et al. 2023)."""

import re
from collections.abc import Iterable
from typing import Any

from distill.generation.auxiliary import Help, helped
from distill.generation.query import Setup
from distill.modeling.chat import Messages
from distill.modeling.sampling import Sampling
from distill.params.teachers import Teacher

LOWEST, HIGHEST = 1.0, 10.0
REPLY_TOKENS = 16  # enough for the reply that is asked for; what runs longer is no rating
TASK = (
    "Act as an impartial judge. Rate how well the answer below serves the user: is it correct, relevant, complete "
    "and clear? 1 is useless, 10 is perfect. Reply with the rating in double brackets and nothing else, for example: "
    "Rating: [[5]]"
)
BRACKETS = re.compile(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]")
BARE = re.compile(r"(?:rating:?\s*)?(\d+(?:\.\d+)?)(?:\s*/\s*10)?\.?", re.IGNORECASE)


def judged(
    rows: Iterable[dict[str, Any]], judge: Teacher, seed: int, setup: Setup
) -> tuple[dict[str, float | None], Help]:
    """The judge's score of each row by its id, and the judge's help.

    Failed and empty answers are not shown to the judge, and it is asked greedily. A reply that is no rating,
    like a failed request, gives None.
    """
    how = Sampling(max_tokens=REPLY_TOKENS, temperature=0.0, top_p=1.0, seed=seed)
    named = {row["id"]: rating_messages(row) for row in rows if row["response"] and not row["error"]}
    help_ = helped("judge", judge, named, how, setup)
    return {name: rating(help_[name].response) for name in named}, help_


def rating_messages(row: dict[str, Any]) -> Messages:
    """What the judge is asked about a row: the conversation, then the answer."""
    turns = "\n\n".join(f"[{turn['role']}]\n{turn['content']}" for turn in row["messages"])
    content = f"{TASK}\n\n{turns}\n\n[answer to rate]\n{row['response']}\n[end of answer]"
    return [{"role": "user", "content": content}]


def rating(reply: str) -> float | None:
    """The rating in a judge's reply: one number in double brackets, or a reply that is a number and nothing else.

    None for several, for one outside 1 to 10, and for anything else: no number is guessed out of a sentence.
    """
    found = BRACKETS.findall(reply)
    if not found and (bare := BARE.fullmatch(reply.strip())):
        found = [bare[1]]
    if len(found) != 1 or not LOWEST <= float(found[0]) <= HIGHEST:
        return None
    return float(found[0])
