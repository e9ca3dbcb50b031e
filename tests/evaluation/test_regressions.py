"""The items on which the student lost most."""

import numpy as np
import pandas as pd
from held_out_rows import row

from distill.evaluation.regressions import largest_regressions


def test_the_largest_regressions_are_by_nats_per_token_above_the_teachers():
    rows = [row(number, f"answer {number}") for number in range(30)]
    names = [sample["id"] for sample in rows]
    teacher = pd.DataFrame({"item": names, "nll": 5.0, "tokens": 10, "generated": "t"})
    distilled = teacher.assign(nll=[5.0 + number for number in range(30)], generated="d")
    distilled.loc[29, "nll"], teacher.loc[29, "tokens"] = 40.0, 100  # many nats, few per token
    teacher["generated"] = ["t", *[np.nan] * 29]
    distilled["generated"] = ["d", *[np.nan] * 29]
    worst = largest_regressions(rows, {"teacher": teacher, "distilled": distilled, "sft": teacher})
    assert [item["id"] for item in worst] == [f"r{number}" for number in range(28, 8, -1)]
    assert list(worst[0]) == [
        "id", "messages", "reference", "generated", "teacher_nll", "distilled_nll", "tokens"
    ]  # fmt: skip
    assert worst[0]["generated"] == {"teacher": None, "distilled": None}
    assert (worst[0]["teacher_nll"], worst[0]["distilled_nll"], worst[0]["tokens"]) == (5.0, 33.0, 10)
    few = {"teacher": teacher[:2], "distilled": distilled[:2].assign(nll=[6.0, 5.0])}
    [only] = largest_regressions(rows, few)  # an item that is no worse is no regression
    assert only["generated"] == {"teacher": "t", "distilled": "d"}
