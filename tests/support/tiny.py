"""An experiment small enough for tests: a teacher of 4 layers, trained here, with a real byte-level BPE tokenizer."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from distill.modeling.batches import pad_batch

ROOT = Path(__file__).parents[2]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LEARNT, MOST_STEPS = 0.03, 1000  # nats a token at which the teacher's training ends
TOPICS = ["ants", "bread", "chess", "dunes", "eagles", "ferns", "glass", "honey", "ivory", "jazz", "kites", "lakes"]
TOPICS += ["maple", "north"]
FORMS = ("What is {}?", "Tell me more about {}, please.", "Why do people like {} so much?")
ANSWERS = ("{} is what people like.", "Tell me why people like {}.", "People like {} so much.")
CORPUS = [form.format(topic) for topic in TOPICS for form in FORMS] * 3 + ["the quick brown fox jumps over a lazy dog"]


def tokenizer(size: int = 400) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a ChatML template, trained on the prompts; pad and end of turn are one token."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def tokenizer_with_bos() -> PreTrainedTokenizerFast:
    """The tokenizer as Llama's: it puts a BOS before every text, which its template has put there already."""
    result = tokenizer()
    result.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", result.bos_token_id)]
    )
    return result


def model(vocabulary: int, layers: int = 4, spread: float = 0.3) -> LlamaForCausalLM:
    """A random Llama whose answers depend on the prompt: its weights are spread wide."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=spread,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


@cache
def teacher() -> LlamaForCausalLM:
    """A model that has learnt an answer to every prompt, so that it can tell its own answers from others."""
    own = tokenizer()
    pairs = []
    for topic in TOPICS:
        for form, answer in zip(FORMS, ANSWERS, strict=True):
            prompt = own.apply_chat_template(
                [{"role": "user", "content": form.format(topic)}], add_generation_prompt=True, return_dict=False
            )
            pairs.append((prompt, [*own(answer.format(topic)).input_ids, own.eos_token_id]))
    batch = pad_batch(pairs)
    labels = torch.tensor([token for _, answer in pairs for token in answer])
    network = model(len(own), spread=0.05).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(MOST_STEPS):
        loss = cross_entropy(
            network(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[batch.response_mask], labels
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < LEARNT:
            return network.eval()
    raise AssertionError(f"the tiny teacher has not learnt its answers: {float(loss):.3f} nats a token")


def weighted(topic: str, response: str, weight: float) -> dict[str, Any]:
    """A row of the training data about the topic."""
    return {
        "id": topic,
        "messages": [{"role": "user", "content": f"What is {topic}?"}],
        "response": response,
        "finish_reason": "stop",
        "weight": weight,
    }


def params(**changes: Any) -> dict[str, Any]:
    """The shipped params.yaml made tiny; `changes` are dotted paths with `__` for the dot."""
    value = yaml.safe_load((ROOT / "params.yaml").read_text())
    small = {
        "data_seed": 7,  # one whose few held-out answers the teacher tells apart
        "training_seeds": [7],
        "runtime.threads": 1,
        "runtime.dtype": "float32",
        "teachers": [
            {
                "name": "tiny",
                "kind": "local",
                "model": "teacher",
                "revision": None,
                "sha256": None,
                "chat_template": None,
                "prompt_fraction": 1.0,
                "license": "none: random weights",
            }
        ],
        "generate.prompts": {"source": "jsonl", "path": "data/prompts/tiny.jsonl"},
        "generate.max_new_tokens": 12,
        "generate.sampling_temperature": 1.0,
        "generate.batch_size": 8,
        "clean.validation_fraction": 0.15,
        "clean.test_fraction": 0.3,
        "clean.drop_truncated": False,
        "clean.min_words": 1,
        "clean.max_repetition": 1.0,
        "clean.minhash_threshold": 1.0,
        "targets.teacher": "tiny",
        "targets.batch_tokens": 256,
        "targets.top_k": 8,
        "weight": {
            "kind": "confidence",
            "confidence": {"measure": "mean_log_prob"},
            "strength": 0.5,
            "num_length_buckets": 5,
            "max_weight": 4.0,
            "min_ess_fraction": 0.7,
        },
        "init.teacher": "tiny",
        "init.layers": 2,
        "init.layer_selection": "uniform",
        "init.vocab_size": 320,
        "train.optimization.num_train_epochs": 2,
        "train.optimization.batch_size": 4,
        "train.optimization.logging_steps": 1,
        "train.optimization.save_steps": 2,
        "train.distilled.loss.ce_weight": 0.0,  # the divergence alone
        "train.save_dtype": "float32",
        "evaluate.teacher": "tiny",
        "evaluate.max_samples": 10,
        "evaluate.max_generations": 4,
        "evaluate.max_new_tokens": 8,
        "evaluate.batch_tokens": 512,
        "evaluate.bootstrap_resamples": 100,
        "evaluate.latency": {"prompt_tokens": 8, "new_tokens": 4, "num_warmup_runs": 1, "num_runs": 3},
        "plot.num_samples": 2,
    }
    for path, new in (small | {key.replace("__", "."): part for key, part in changes.items()}).items():
        *parents, last = path.split(".")
        place = value
        for name in parents:
            place = place[name]
        place[last] = new
    return value


def prompts() -> str:
    """The lines of a prompts file: every topic in every form."""
    rows = [
        {"id": f"{topic}/{place}", "topic": topic, "messages": [{"role": "user", "content": form.format(topic)}]}
        for topic in TOPICS
        for place, form in enumerate(FORMS)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def environment() -> dict[str, str]:
    """The environment of a user's shell in which the project's own comes first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    names = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t"}
    ours = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {key: part for key, part in os.environ.items() if key != "DISTILL_HOME"} | names | ours


def repository(folder: Path, **changes: Any) -> Path:
    """A clone of the project as it stands in the working tree, with the tiny experiment in it, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    made = [name for name in listed.stdout.splitlines() if name.startswith(("metrics/", "data/prompts/"))]
    for name in set(listed.stdout.splitlines()) - {*made, "dvc.lock"} | {"metrics/methods.csv"}:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    tokenizer().save_pretrained(folder / "teacher")
    teacher().save_pretrained(folder / "teacher")
    (folder / "data/prompts").mkdir(parents=True, exist_ok=True)
    (folder / "data/prompts/tiny.jsonl").write_text(prompts())
    (folder / "params.yaml").write_text(yaml.safe_dump(params(**changes), sort_keys=False))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "tiny"]):
        subprocess.run(["git", *command], cwd=folder, env=environment(), check=True)
    return folder


def run(folder: Path, *command: str, check: bool = True, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Runs a command there as a user would; with `check` its output is shown where it fails."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
    assert not check or done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}"
    return done
