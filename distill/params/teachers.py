"""Section `teachers`: local models and API endpoints."""

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from distill.params.fields import Count, Fraction, Line, Model, Name, NotNegative, Real, Section, Text, Url

FIXED_FIELDS = ("model", "messages", "stream", "n")  # of a request: the response is read by them


def _json(value: Any) -> Any:
    """The value, if it is JSON and sets no fixed field."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"must be JSON, with numbers that are finite and no dates ({error})") from None
    if json.loads(text) != value:
        raise ValueError("must be JSON, whose keys are strings, got another key")
    if fixed := [name for name in FIXED_FIELDS if value.get(name) is not None]:
        raise ValueError(f"must not set {fixed}; null leaves stream or n out")
    return value


ExtraBody = Annotated[dict[str, Any], AfterValidator(_json)]


class LocalTeacher(Section):
    """A transformers model in this process: a folder, a hub name, or a GGUF file.

    `package:NAME/FILE` is a file inside an installed Python package. `sha256` pins a GGUF file, and `revision` a hub
    model; null where they do not apply. `chat_template` null is the model's own; few_shot is for base models
    (distill/modeling/few_shot.py). `license` is the license and terms of its responses, for the data card.
    """

    name: Name
    kind: Literal["local"]
    model: Model
    revision: Line | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    chat_template: Literal["few_shot"] | None
    prompt_fraction: Fraction
    license: Text | None


class Price(Section):
    """US dollars per million tokens; of the Batch API if the teacher's mode is batch."""

    prompt: NotNegative
    completion: NotNegative


class ApiTeacher(Section):
    """An OpenAI-compatible chat endpoint. `api_key_env` is the environment variable with the key.

    `extra_body` has fields of a request, of any JSON, in addition to OpenAI's or in place of them; null leaves a field
    out. `on_missing` is what to do if it lacks one of generate.required_capabilities: fail, or degrade to mark its
    rows.
    """

    name: Name
    kind: Literal["openai"]
    model: Line
    base_url: Url
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$", max_length=100)]
    mode: Literal["live", "batch"]
    concurrency: Annotated[int, Field(ge=1, le=10_000)]
    requests_per_minute: Count | None
    tokens_per_minute: Count | None
    timeout_s: Annotated[Real, Field(ge=0.001, le=86_400)]
    max_retries: Annotated[int, Field(ge=0, le=100)]
    price: Price | None
    on_missing: Literal["fail", "degrade"]
    extra_body: ExtraBody
    prompt_fraction: Fraction
    license: Text | None


Teacher = Annotated[LocalTeacher | ApiTeacher, Field(discriminator="kind")]
