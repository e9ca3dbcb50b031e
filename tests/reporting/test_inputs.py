"""The inputs of a report: each file is checked for the values that the report needs."""

import pytest

from distill.core.errors import UserError
from distill.reporting.inputs import require


@pytest.mark.parametrize("bad", [None, "0.9", True, float("nan"), [1]])
def test_a_missing_number_names_its_path_and_stage(bad):
    with pytest.raises(UserError, match=r"x\.json must have a number at a\.b, got .* Stage evaluate writes"):
        require({"a": {"b": bad}}, "x.json", "evaluate", ["a.b"])
    require({"a": {"b": 1}, "m": [{"c": "t"}]}, "x.json", "evaluate", ["a.b"], ["m.-1.c"])
    with pytest.raises(UserError, match="text at"):
        require({"m": []}, "x.json", "evaluate", texts=["m.-1.c"])
