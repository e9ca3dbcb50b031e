"""Hostile chat templates: each is one message after bounded time and memory, in a process of its own."""

import time

import pytest
import tiny

from distill.core.errors import UserError
from distill.core.limited import run_limited
from distill.modeling import templates

MESSAGES = [{"role": "user", "content": "What are bees?"}]
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HOSTILE = [
    LOOP,
    "{{ 'a' * 10 ** 10 }}",
    "{{ '%10000000000d' | format(1) }}",
    "{{ messages[0]['content'] | center(10 ** 10) }}",
    "{% for a in range(99999) %}{{ messages[0]['content'] * 1000 }}{% endfor %}",
    "{{ 'a' * 10 ** 7 }}",
    "{% set ns = namespace(x='a') %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "{{ raise_exception('no system') }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ range(10 ** 10) | list }}",
    "{{ 1 / 0 }}",
    "{{ messages[7]['content'] }}",
    "{{ messages | map(attribute='content') | sum }}",
    "{{ ''.__class__.__mro__ }}{{ open('/etc/passwd') }}",
    "{% include 'x' %}",
    "{% for",
    "{{",
    "{% endif %}",
    "(" * 10_000,
    "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
]


@pytest.mark.parametrize("template", HOSTILE, ids=range(len(HOSTILE)))
def test_a_template_renders_or_is_one_message_in_bounded_time(template, monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 2.0)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    start = time.monotonic()
    try:
        text = templates.render(tokenizer, MESSAGES)
    except UserError as error:
        assert "must render every conversation, got" in str(error)
        assert len(str(error)) < 1000
    else:
        assert len(text) <= templates.MAX_GROWTH + 10**4
    assert time.monotonic() - start < 20


def test_a_template_that_loops_for_one_prompt_alone_is_found_before_any_is_asked(monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 2.0)
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{% if 'wasps' in messages[0]['content'] %}" + LOOP + "{% endif %}" + tiny.TEMPLATE
    templates.require_renderable(tokenizer, [MESSAGES] * 20)
    with pytest.raises(UserError, match=r"got more than \S+ s of time for one"):
        templates.require_renderable(tokenizer, [MESSAGES, [{"role": "user", "content": "What are wasps?"}]])


def test_a_limited_function_changes_nothing_here_and_says_why_it_failed():
    seen: list[int] = []
    assert run_limited(lambda: seen.append(1), 5) is None
    assert seen == []

    def fails() -> None:
        raise ValueError("no bees")

    assert run_limited(fails, 5) == "no bees"
    assert run_limited(lambda: time.sleep(9), 0.2) == "more than 0.2 s of time"
    assert run_limited(lambda: seen.extend(bytearray(2**32)), 20) == "more than 1 GiB of memory"
