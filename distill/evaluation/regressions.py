"""Where the student lost most against its teacher: the items to look at."""

from typing import Any

import pandas as pd

from distill.core.numbers import round_number

SHOWN = 20


def largest(rows: list[dict[str, Any]], tables: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """The items on which `distilled` needs the most nats per token of the teacher beyond the teacher's own.

    `tables` has each model's items. `generated` is what the two wrote, null where they were not asked to write;
    `teacher_nll` and `distilled_nll` are nats of the whole reference, `tokens` the teacher's tokens of it.
    """
    teacher, distilled = (tables[name].set_index("item") for name in ("teacher", "distilled"))
    excess = (distilled["nll"] - teacher["nll"]) / teacher["tokens"]
    worst = excess[excess > 0].sort_index().sort_values(ascending=False, kind="stable").index[:SHOWN]
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
