import copy
from itertools import pairwise

import pytest
from shipped_params import SHIPPED, refusal

from distill.params.loading import check_params
from distill.params.renamed import RENAMED, renamed_keys


def with_key(pattern: str) -> tuple[dict, str]:
    """The shipped params with an old key in addition, and the key's dotted path."""
    result = copy.deepcopy(SHIPPED)
    last = pattern.split(".")[-1]
    section, path = result, []
    for name, after in pairwise(pattern.split(".")):
        if name == "*":
            section, name = section[0], "0"
        else:
            if not isinstance(section.get(name), list if after == "*" else dict) or (
                after == "*" and not section[name]
            ):
                section[name] = [{}] if after == "*" else {}
            section = section[name]
        path.append(name)
    section[last] = 1
    return result, ".".join([*path, last])


@pytest.mark.parametrize("old", RENAMED)
def test_every_old_key_is_refused_with_its_new_name(old):
    value, path = with_key(old)
    message = refusal(value)
    assert f"  {path}: is now {RENAMED[old].replace('*', '0')}" in message.splitlines()
    assert "has keys of an earlier version" in message


def test_the_shipped_params_have_no_old_key():
    assert list(renamed_keys(SHIPPED)) == []
    assert check_params(SHIPPED)


def test_old_keys_are_listed_in_the_order_of_the_file():
    value = copy.deepcopy(SHIPPED)
    value["plot"]["samples"] = 6
    value["teachers"][0]["licence"] = "MIT"
    lines = refusal(value | {"seed": 7}).splitlines()
    assert lines[1:4] == [
        "  teachers.0.licence: is now teachers.0.license",
        "  plot.samples: is now plot.num_samples",
        "  seed: is now data_seed",
    ]
