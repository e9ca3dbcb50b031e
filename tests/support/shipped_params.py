"""The shipped params.yaml with changes, and the message that refuses it."""

import copy

import pytest
import tiny
import yaml

from distill.core.errors import UserError
from distill.params.loading import check_params

SHIPPED = yaml.safe_load((tiny.ROOT / "params.yaml").read_text())
TARGETS = {"teacher": "smollm2", "batch_tokens": 1, "layers": None, "score_without_prompt": False}
SAMPLED = TARGETS | {"kind": "sampled", "num_draws": 50}
ON_POLICY = TARGETS | {"kind": "on_policy", "on_policy_fraction": 0.5, "max_new_tokens": 8, "sampling_temperature": 1.0}
WEIGHTS = {
    "kind": "confidence", "confidence": {"measure": "mean_log_prob"}, "strength": 0.5, "num_length_buckets": 5,
    "max_weight": 4.0, "min_ess_fraction": 0.7,
}  # fmt: skip
HIDDEN_LOSS = {"layer_pairs": [[20, 1]], "distance": "mse", "projection": True, "weight": 1.0, "hint_fraction": 0.0}


def changed(*changes: tuple[str, object]) -> dict:
    """The shipped params with other values at dotted paths."""
    result = copy.deepcopy(SHIPPED)
    for path, value in changes:
        *parents, last = path.split(".")
        section = result
        for name in parents:
            section = section[int(name)] if isinstance(section, list) else section[name]
        section[int(last) if isinstance(section, list) else last] = value
    return result


def refusal(value: object) -> str:
    """The message that refuses the params."""
    with pytest.raises(UserError) as error:
        check_params(value)
    return str(error.value)
