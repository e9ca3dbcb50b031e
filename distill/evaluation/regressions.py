"""The items on which the student lost most against its teacher."""

import pandas as pd

from distill.core.files import Row
from distill.core.numbers import round_number

NUM_SHOWN = 20


def largest_regressions(rows: list[Row], tables: dict[str, pd.DataFrame]) -> list[Row]:
    """The items where `distilled` needs the most nats per teacher token above the teacher's own, worst first.

    `tables` has each model's items. In the result, `generated` has the text of teacher and student, null where none
    was generated. `teacher_nll` and `distilled_nll` are nats of the reference, `tokens` its teacher tokens.
    """
    teacher, distilled = (tables[name].set_index("item") for name in ("teacher", "distilled"))
    excess = (distilled["nll"] - teacher["nll"]) / teacher["tokens"]
    worst = excess[excess > 0].sort_index().sort_values(ascending=False, kind="stable").index[:NUM_SHOWN]
    by_id = {row["id"]: row for row in rows}
    return [
        {
            "id": item,
            "messages": by_id[item]["messages"],
            "reference": by_id[item]["response"],
            "generated": {
                name: text if isinstance(text := table.at[item, "generated"], str) else None
                for name, table in (("teacher", teacher), ("distilled", distilled))
            },
            "teacher_nll": round_number(teacher.at[item, "nll"]),
            "distilled_nll": round_number(distilled.at[item, "nll"]),
            "tokens": int(teacher.at[item, "tokens"]),
        }
        for item in worst
    ]
