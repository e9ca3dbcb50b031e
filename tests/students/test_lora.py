"""Students of which an adapter alone is trained: LoRA and QLoRA, merged at the end."""

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
import yaml
from forks import stage
from other_tokenizers import OTHER
from repositories import copy_repository, retarget, stage_command, stop_command
from safetensors.torch import load_file
from training_samples import OPTIMIZATION, training_samples
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from distill.core.errors import UserError
from distill.losses.hidden_states import PROJECTIONS, prepare_hidden_loss
from distill.losses.logit_loss import CROSS_ENTROPY
from distill.params.loading import check_params
from distill.params.train import Adapter, HiddenLoss
from distill.students import lora
from distill.training import sampler, trainer

LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear", "quantization": None}
PRETRAINED = {"source": "pretrained", "model": "m", "revision": None, "license": None}
IDS = torch.arange(3, 27).view(2, 12)
VOCABULARY = 50


def adapter(**changes: object) -> Adapter:
    return Adapter(**(LORA | changes))


def llama() -> torch.nn.Module:
    return tiny.model(VOCABULARY, layers=2, spread=0.1)


def gpt2() -> torch.nn.Module:
    """A model whose linear layers have their matrices the other way round."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()


def attached(model: torch.nn.Module, settings: Adapter, seed: int = 1):
    return lora.attached(model, settings, torch.float32, seed)


def set_adapter(model: torch.nn.Module) -> None:
    """As after a training: the matrices B are no longer zero."""
    generator = torch.Generator().manual_seed(2)
    for name, weight in lora.trained_weights(model).items():
        if "lora_B" in name:
            weight.data.normal_(std=0.1, generator=generator)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize(
    ("make_model", "targets"),
    [
        (llama, "all-linear"),
        (llama, ["layers.1.mlp.down_proj", "q_proj"]),
        (gpt2, "all-linear"),
        (gpt2, ["c_attn"]),
    ],
)
def test_a_merged_model_keeps_the_adapted_logits(make_model, targets):
    model = make_model()
    plain, names = logits(model), list(model.state_dict())
    count = lora.trained_parameters(model, adapter(target_modules=targets))
    with attached(model, adapter(target_modules=targets)):
        assert torch.equal(logits(model), plain), "before its first step it changes nothing"
        assert sum(weight.numel() for weight in lora.trained_weights(model).values()) == count > 0
        set_adapter(model)
        adapted = logits(model.eval())
    assert float((adapted - plain).abs().max()) > 1e-2
    assert float((adapted - logits(model)).abs().max()) < 1e-5
    assert list(model.state_dict()) == names
    assert not hasattr(model, "peft_config")
    assert all(weight.requires_grad for weight in model.parameters())


def test_initial_adapters_depend_on_the_seed_alone():
    trained = []
    for seed, before in ((1, 5), (1, 6), (2, 5)):
        model = llama()
        torch.manual_seed(before)
        state = torch.get_rng_state()
        with attached(model, adapter(), seed):
            assert torch.equal(torch.get_rng_state(), state)
            trained.append({name: weight.detach().clone() for name, weight in lora.trained_weights(model).items()})
    same, other = ([torch.equal(trained[0][name], one[name]) for name in trained[0]] for one in trained[1:])
    assert all(same)
    assert not all(other)


def test_training_changes_the_adapter_alone(tmp_path):
    model = llama()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with attached(model, adapter(target_modules=["q_proj", "v_proj"])):
        steps = trainer.DistillTrainer(
            trainer.Objective(CROSS_ENTROPY),
            torch.float32,
            model=model,
            args=trainer.training_arguments(tmp_path, OPTIMIZATION.model_copy(update={"save_steps": 1}), 1, seed=0),
            train_dataset=sampler.OrderedDataset(training_samples(), list(range(8))),
        )
        steps.train()
        trained = {name: weight.detach().clone() for name, weight in lora.trained_weights(model).items()}
        frozen = {name: weight for name, weight in model.named_parameters() if not weight.requires_grad}
        assert len(trained) == 2 * 2 * 2
        assert all("lora_" in name for name in trained)
        assert any(float(weight.abs().max()) > 0 for name, weight in trained.items() if "lora_B" in name)
        assert len(frozen) == len(before)
        for name, weight in frozen.items():
            assert torch.equal(weight, before[name.replace(".base_layer", "")]), name
        kept = tmp_path / "checkpoint-1"
        assert {path.name for path in kept.glob("*.safetensors")} == {trainer.TRAINED}
        assert load_file(kept / trainer.TRAINED).keys() == trained.keys()
        set_adapter(model)
        steps._load_from_checkpoint(str(kept))
        assert all(torch.equal(weight, trained[name]) for name, weight in lora.trained_weights(model).items())
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj"}


def test_projections_are_trained_without_an_adapter():
    model = llama()
    section = {"layer_pairs": [[3, 1]], "distance": "cosine", "projection": True, "weight": 1.0, "hint_fraction": 0.0}
    prepare_hidden_loss(model, HiddenLoss(**section), [3], 64)
    with attached(model, adapter()):
        own = [name for name in lora.trained_weights(model) if name.startswith(PROJECTIONS)]
        assert own == ["layer_projections.0.weight"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"target_modules": ["q_proj", "query"]},
            r"no linear layer 'query' .* It has q_proj, k_proj, v_proj, o_proj, ",
        ),
        ({"target_modules": ["lm_head"]}, "no linear layer 'lm_head'"),
        ({"target_modules": ["proj"]}, "no linear layer 'proj'"),
        ({"rank": 17}, r"rank: must be at most 16, .* model.layers.0.self_attn.k_proj \[16, 32\], got 17"),
        ({"quantization": "nf4"}, "nf4 needs bitsandbytes, which is not installed: `make qlora`"),
    ],
)
def test_unfitting_adapters_are_refused(monkeypatch, changes, words):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lora.require_adapter(llama(), adapter())
    with pytest.raises(UserError, match=words):
        lora.require_adapter(llama(), adapter(**changes))


def test_a_conv1d_student_is_not_quantized(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UserError, match="c_attn of a gpt2 student is a Conv1D"):
        lora.require_adapter(gpt2(), adapter(quantization="nf4"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 0}, r"train.adapter.rank: input should be greater than or equal to 1 \(got 0\)"),
        ({"dropout": 1.0}, "train.adapter.dropout: input should be less than 1"),
        ({"target_modules": "q_proj"}, "train.adapter.target_modules: input should be 'all-linear'"),
        ({"target_modules": []}, "train.adapter.target_modules: list should have at least 1 item"),
        ({"quantization": "int8"}, "train.adapter.quantization: input should be 'nf4'"),
    ],
)
def test_a_mistake_in_params_is_named_by_its_path(changes, words):
    with pytest.raises(UserError, match=words):
        check_params(tiny.params(init=PRETRAINED, train__adapter=LORA | changes))


def test_an_average_over_adapters_is_refused():
    generations = {"num_generations": 2, "start": "previous", "ema_decay": 0.9}
    with pytest.raises(UserError, match=r"train: self_distillation.ema_decay: must be null with an adapter"):
        check_params(tiny.params(init=PRETRAINED, train__adapter=LORA, train__self_distillation=generations))
    generations["ema_decay"] = None
    check_params(tiny.params(init=PRETRAINED, train__adapter=LORA, train__self_distillation=generations))


@pytest.mark.slow
def test_a_quantized_base_is_restored_unrounded():
    pytest.importorskip("bitsandbytes", reason="optional: make qlora")
    model, plain = llama(), llama()
    lora.require_adapter(model, adapter(quantization="nf4"))
    before = logits(model)
    with attached(model, adapter(quantization="nf4", target_modules=["q_proj"])):
        assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
        assert float((logits(model) - before).abs().max()) > 1e-3, "nothing was rounded"
        set_adapter(model)
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        assert all(weight.grad is not None for weight in lora.trained_weights(model).values())
        learnt = {name: weight.detach().clone() for name, weight in lora.trained_weights(model).items()}
    with attached(plain, adapter(target_modules=["q_proj"])):
        for name, weight in lora.trained_weights(plain).items():
            weight.data.copy_(learnt[name])
    for (name, weight), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(weight, other), name


def adapted(folder: Path, train: dict[str, object] | None = None, **changes: object) -> Path:
    """The experiment with a smaller model of its own as the student, which an adapter is trained of."""
    own = tiny.tokenizer()
    own.save_pretrained(folder / "other")
    tiny.model(len(own), layers=2, spread=0.05).save_pretrained(folder / "other")
    path = folder / "params.yaml"
    value = yaml.safe_load(path.read_text())
    value["init"] = PRETRAINED | {"model": "other"}
    value["train"]["adapter"] = LORA | {"dropout": 0.1} | changes
    value["train"]["optimization"]["learning_rate"] = 2e-2
    value["train"] |= train or {}
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return folder


def weights(folder: Path) -> bytes:
    return (folder / "models/distilled-7/model.safetensors").read_bytes()


def record(folder: Path, run: str) -> dict[str, object]:
    return json.loads((folder / ("metrics/init.json" if run == "init" else f"metrics/train/{run}.json")).read_text())


def test_an_adapted_student_resumes_to_the_same_bytes(finished, tmp_path):
    folder = adapted(copy_repository(finished, tmp_path / "repository"))
    stage(folder, "init")
    stage(folder, "train distilled 7")
    init, trained, uninterrupted = record(folder, "init"), record(folder, "distilled-7"), weights(folder)
    assert (trained["parameters"], trained["trained_parameters"]) == (init["parameters"], 4 * 2 * 512)
    assert trained["adapter"] == LORA | {"dropout": 0.1}
    assert trained["validation_loss"] < init["validation_loss"] - 0.1
    assert "adapter" not in init
    card = (folder / "models/distilled-7/README.md").read_text()
    assert "| train.adapter.rank | 4 |" in card
    assert "low-rank adapter" in card
    assert "adapter" not in (folder / "models/init/README.md").read_text()
    start, end = (AutoModelForCausalLM.from_pretrained(folder / f"models/{run}") for run in ("init", "distilled-7"))
    assert type(start) is type(end)
    changed = [
        name for (name, one), two in zip(start.named_parameters(), end.parameters(), strict=True)
        if not torch.equal(one, two)
    ]  # fmt: skip
    assert len(changed) == 2 * 7
    assert all("proj" in name for name in changed)
    stop_command(folder, stage_command("train distilled 7"))
    [kept] = folder.glob(".distill/checkpoints/distilled-7-*/student/checkpoint-2")
    assert {path.name for path in kept.glob("*.safetensors")} == {trainer.TRAINED}
    assert "resuming from checkpoint-2" in stage(folder, "train distilled 7").stdout
    assert weights(folder) == uninterrupted


def test_an_adapter_without_a_layer_gives_one_message(finished, tmp_path):
    folder = adapted(copy_repository(finished, tmp_path / "repository"), target_modules=["query"])
    done = stage(folder, "train distilled 7", check=False)
    assert done.returncode == 1
    assert "the student has no linear layer 'query'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        ("jsd", {"kind": "hidden_states"}),
        ("forward_kl", {"kind": "sampled", "num_draws": 20}),
        ("reverse_kl", {"kind": "online"}),
        (
            "reverse_kl",
            {"kind": "on_policy", "on_policy_fraction": 0.7, "max_new_tokens": 8, "sampling_temperature": 1.0},
        ),
    ],
)
def test_an_adapter_learns_from_every_kind_of_targets(finished, tmp_path, loss, targets):
    folder = adapted(copy_repository(finished, tmp_path / "repository"))
    retarget(folder, loss, **targets)
    stage(folder, "train distilled 7")
    trained = record(folder, "distilled-7")
    assert trained["loss"] == loss
    curve = pd.read_csv(folder / "metrics/train/distilled-7_log.csv").query("split == 'validation'").loss
    assert curve.iloc[-1] < curve.iloc[0] - 0.05


@pytest.mark.slow
def test_an_adapter_learns_from_another_tokenizer(finished, tmp_path):
    folder = adapted(copy_repository(finished, tmp_path / "repository"))
    OTHER.save_pretrained(folder / "other")
    tiny.model(len(OTHER), layers=2, spread=0.05).save_pretrained(folder / "other")
    for name in ("init", "train distilled 7"):
        stage(folder, name)
    assert record(folder, "distilled-7")["validation_loss"] < record(folder, "init")["validation_loss"] - 0.1


@pytest.mark.slow
def test_an_adapter_with_hidden_loss_resumes_to_the_same_bytes(finished, tmp_path):
    layers = {"layer_pairs": [[3, 1]], "distance": "cosine", "projection": True, "weight": 1.0, "hint_fraction": 0.3}
    distilled = tiny.params()["train"]["distilled"] | {"hidden_loss": layers}
    folder = adapted(copy_repository(finished, tmp_path / "repository"), {"distilled": distilled})
    path = folder / "params.yaml"
    value = yaml.safe_load(path.read_text())
    value["targets"]["layers"] = [3]
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    for name in ("targets", "init", "train distilled 7"):
        stage(folder, name)
    assert record(folder, "distilled-7")["validation_loss"] < record(folder, "init")["validation_loss"] - 0.1
    assert not any("layer_projections" in name for name in load_file(folder / "models/distilled-7/model.safetensors"))
    uninterrupted = weights(folder)
    stop_command(folder, stage_command("train distilled 7"))
    assert "resuming from checkpoint-2" in stage(folder, "train distilled 7").stdout
    assert weights(folder) == uninterrupted


@pytest.mark.slow
def test_each_generation_has_a_new_adapter(finished, tmp_path):
    generations = {"num_generations": 2, "start": "previous", "ema_decay": None}
    folder = adapted(copy_repository(finished, tmp_path / "repository"), {"self_distillation": generations})
    stage(folder, "train distilled 7")
    uninterrupted = weights(folder)
    losses = record(folder, "distilled-7")["phases"]
    first, second = losses["generation-1"], losses["generation-2"]
    assert second["first_validation_loss"] == pytest.approx(first["validation_loss"], abs=1e-3)
    stop_command(folder, stage_command("train distilled 7"), at="generation-2/checkpoint-4/complete")
    output = stage(folder, "train distilled 7").stdout
    assert "generation-1 is finished" in output
    assert "resuming from checkpoint-2" in output
    assert weights(folder) == uninterrupted


@pytest.mark.slow
def test_a_quantized_base_resumes_to_the_same_bytes(finished, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="optional: make qlora")
    folder = adapted(copy_repository(finished, tmp_path / "repository"), quantization="nf4")
    for name in ("init", "train sft 7", "train distilled 7"):
        stage(folder, name)
    init, trained, uninterrupted = record(folder, "init"), record(folder, "distilled-7"), weights(folder)
    assert trained["adapter"]["bitsandbytes"] == bitsandbytes.__version__
    assert trained["parameters"] == init["parameters"]
    assert trained["merged_validation_loss"] < init["validation_loss"] - 0.1
    assert trained["merged_validation_loss"] != trained["validation_loss"]
    stop_command(folder, stage_command("train distilled 7"))
    assert "resuming from checkpoint-2" in stage(folder, "train distilled 7").stdout
    assert weights(folder) == uninterrupted
