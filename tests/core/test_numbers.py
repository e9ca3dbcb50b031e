"""Rounding to six significant digits."""

from distill.core.numbers import round_number, round_numbers


def test_six_significant_digits_remain():
    assert [round_number(value) for value in (1.23456789, 1234567.0, -0.000123456789, 0.0)] == [
        1.23457, 1234570.0, -0.000123457, 0.0
    ]  # fmt: skip


def test_floats_in_nested_mappings_are_rounded_and_nothing_else():
    values = {"a": {"b": 0.123456789, "n": 12345678}, "text": "0.123456789", "rows": [0.123456789], "none": None}
    assert round_numbers(values) == values | {"a": {"b": 0.123457, "n": 12345678}}
