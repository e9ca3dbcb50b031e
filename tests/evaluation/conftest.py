"""The tiny tokenizer and a random model for the tests of evaluation."""

import pytest
import tiny


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny.model(len(tokenizer))
