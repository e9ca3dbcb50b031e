"""Students of which an adapter alone is trained: LoRA and QLoRA, merged at the end."""

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch
import yaml
from distill.params.students import Adapter
from forks import stage
from other_tokenizers import OTHER
from repositories import copy_repository, retarget, stage_command, stop_command
from safetensors.torch import load_file
from training_samples import CE, SCHEDULE, samples
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from distill.core.errors import UserError
from distill.losses import hidden_states
from distill.params import loading
from distill.params import train as params_train
from distill.students import lora
from distill.training import sampler, trainer

LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear", "quantization": None}
IDS = torch.arange(3, 27).view(2, 12)
VOCABULARY = 50


def adapter(**changes: object) -> Adapter:
    return Adapter(**(LORA | changes))


def network() -> torch.nn.Module:
    return tiny.model(VOCABULARY, layers=2, spread=0.1)


def gpt2() -> torch.nn.Module:
    """A model whose linear layers have their matrices the other way round."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()


def attached(model: torch.nn.Module, settings: Adapter, seed: int = 1):
    return lora.attached(model, settings, torch.float32, seed)


def moved(model: torch.nn.Module) -> None:
    """As after a training: the matrices B are no longer zero."""
    generator = torch.Generator().manual_seed(2)
    for name, weight in lora.trained(model).items():
        if "lora_B" in name:
            weight.data.normal_(std=0.1, generator=generator)


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize(
    ("made", "targets"),
    [
        (network, "all-linear"),
        (network, ["layers.1.mlp.down_proj", "q_proj"]),
        (gpt2, "all-linear"),
        (gpt2, ["c_attn"]),
    ],
)
def test_the_merged_network_is_a_plain_one_with_the_adapted_ones_logits(made, targets):
    model = made()
    plain, names = logits(model), list(model.state_dict())
    count = lora.trained_parameters(model, adapter(target_modules=targets))
    with attached(model, adapter(target_modules=targets)):
        assert torch.equal(logits(model), plain), "before its first step it changes nothing"
        assert sum(weight.numel() for weight in lora.trained(model).values()) == count > 0
        moved(model)
        adapted = logits(model.eval())
    assert float((adapted - plain).abs().max()) > 1e-2
    assert float((adapted - logits(model)).abs().max()) < 1e-5
    assert list(model.state_dict()) == names
    assert not hasattr(model, "peft_config")
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_first_weights_depend_on_the_seed_alone_and_leave_the_generator_where_it_was():
    found = []
    for seed, before in ((1, 5), (1, 6), (2, 5)):
        model = network()
        torch.manual_seed(before)
        state = torch.get_rng_state()
        with attached(model, adapter(), seed):
            assert torch.equal(torch.get_rng_state(), state)
            found.append({name: weight.detach().clone() for name, weight in lora.trained(model).items()})
    same, other = ([torch.equal(found[0][name], one[name]) for name in found[0]] for one in found[1:])
    assert all(same)
    assert not all(other)


def test_a_training_changes_and_keeps_the_adapter_alone(tmp_path):
    model = network()
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with attached(model, adapter(target_modules=["q_proj", "v_proj"])):
        steps = trainer.DistillTrainer(
            settings=CE,
            autocast=torch.float32,
            model=model,
            args=trainer.arguments(tmp_path, SCHEDULE.model_copy(update={"save_every": 1}), 1, seed=0),
            train_dataset=sampler.Ordered(samples(), list(range(8))),
        )
        steps.train()
        trained = {name: weight.detach().clone() for name, weight in lora.trained(model).items()}
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
        moved(model)
        steps._load_from_checkpoint(str(kept))
        assert all(torch.equal(weight, trained[name]) for name, weight in lora.trained(model).items())
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj"}


def test_the_matrices_of_a_loss_of_layers_are_trained_too_and_get_no_adapter():
    model = network()
    pairs = {"pairs": [[3, 1]], "loss": "cosine", "projection": True, "weight": 1.0, "alone": 0.0}
    hidden_states.prepare(model, params_train.LayerLoss(**pairs), [3], 64)
    with attached(model, adapter()):
        own = [name for name in lora.trained(model) if name.startswith(hidden_states.NAME)]
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
        ({"rank": 17}, r"rank: 17 is above 16, .* model.layers.0.self_attn.k_proj \[16, 32\]"),
        ({"quantization": "nf4"}, "nf4 needs bitsandbytes, which is not installed: `make qlora`"),
    ],
)
def test_what_a_student_cannot_have_is_refused(monkeypatch, changes, words):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lora.require(network(), adapter())
    with pytest.raises(UserError, match=words):
        lora.require(network(), adapter(**changes))


def test_a_student_that_cannot_be_quantized_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UserError, match="c_attn of a gpt2 student is a Conv1D"):
        lora.require(gpt2(), adapter(quantization="nf4"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 0}, r"train.student.adapter.rank: input should be greater than or equal to 1 \(given 0\)"),
        ({"dropout": 1.0}, "train.student.adapter.dropout: input should be less than 1"),
        ({"target_modules": "q_proj"}, "train.student.adapter.target_modules: input should be 'all-linear'"),
        ({"target_modules": []}, "train.student.adapter.target_modules: list should have at least 1 item"),
        ({"quantization": "int8"}, "train.student.adapter.quantization: input should be 'nf4'"),
    ],
)
def test_a_mistake_in_params_is_named_by_its_path(changes, words):
    student = {"source": "pretrained", "model": "m", "revision": None, "adapter": LORA | changes}
    with pytest.raises(UserError, match=words):
        loading.check(tiny.params(train__student=student))


def test_an_average_over_adapters_of_several_rounds_is_refused():
    student = {"source": "pretrained", "model": "m", "revision": None, "adapter": LORA}
    rounds = {"number": 2, "start": "last", "average_decay": 0.9}
    with pytest.raises(UserError, match=r"train: rounds.average_decay: must be null with student.adapter"):
        loading.check(tiny.params(train__student=student, train__rounds=rounds))
    loading.check(tiny.params(train__student=student, train__rounds=rounds | {"average_decay": None}))


@pytest.mark.slow
def test_a_quantized_base_comes_back_unrounded_with_the_adapter_added():
    pytest.importorskip("bitsandbytes", reason="optional: make qlora")
    model, plain = network(), network()
    lora.require(model, adapter(quantization="nf4"))
    before = logits(model)
    with attached(model, adapter(quantization="nf4", target_modules=["q_proj"])):
        assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
        assert float((logits(model) - before).abs().max()) > 1e-3, "nothing was rounded"
        moved(model)
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        assert all(weight.grad is not None for weight in lora.trained(model).values())
        learnt = {name: weight.detach().clone() for name, weight in lora.trained(model).items()}
    with attached(plain, adapter(target_modules=["q_proj"])):
        for name, weight in lora.trained(plain).items():
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
    value["train"]["student"] = {
        "source": "pretrained", "model": "other", "revision": None, "adapter": LORA | {"dropout": 0.1} | changes,
    }  # fmt: skip
    value["train"]["schedule"]["learning_rate"] = 2e-2
    value["train"] |= train or {}
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return folder


def weights(folder: Path) -> bytes:
    return (folder / "models/distilled-7/model.safetensors").read_bytes()


def record(folder: Path, run: str) -> dict[str, object]:
    return json.loads((folder / f"metrics/train/{run}.json").read_text())


def test_an_adapted_student_is_a_plain_one_and_goes_on_after_a_kill_to_the_same_bytes(finished, tmp_path):
    folder = adapted(copy_repository(finished, tmp_path / "repository"))
    stage(folder, "train init")
    stage(folder, "train distilled 7")
    init, found, whole = record(folder, "init"), record(folder, "distilled-7"), weights(folder)
    assert (found["parameters"], found["trained_parameters"]) == (init["parameters"], 4 * 2 * 512)
    assert found["adapter"] == LORA | {"dropout": 0.1}
    assert found["validation_loss"] < init["validation_loss"] - 0.1
    assert "adapter" not in init
    card = (folder / "models/distilled-7/README.md").read_text()
    assert "| student.adapter.rank | 4 |" in card
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
    assert weights(folder) == whole


def test_an_adapter_that_fits_no_layer_ends_in_one_message(finished, tmp_path):
    folder = adapted(copy_repository(finished, tmp_path / "repository"), target_modules=["query"])
    done = stage(folder, "train init", check=False)
    assert done.returncode == 1
    assert "the student has no linear layer 'query'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        ("jsd", {"kind": "hidden"}),
        ("forward_kl", {"kind": "sampled", "draws": 20}),
        ("reverse_kl", {"kind": "online"}),
        ("reverse_kl", {"kind": "on_policy", "student_fraction": 0.7, "max_tokens": 8, "sampling_temperature": 1.0}),
    ],
)
def test_an_adapter_learns_from_all_that_a_teacher_gives(finished, tmp_path, loss, targets):
    folder = adapted(copy_repository(finished, tmp_path / "repository"))
    retarget(folder, loss, **targets)
    stage(folder, "train distilled 7")
    found = record(folder, "distilled-7")
    assert found["loss"] == loss
    curve = pd.read_csv(folder / "metrics/train/distilled-7_log.csv").query("split == 'validation'").loss
    assert curve.iloc[-1] < curve.iloc[0] - 0.05


@pytest.mark.slow
def test_an_adapter_learns_from_a_teacher_of_another_tokenizer(finished, tmp_path):
    folder = adapted(copy_repository(finished, tmp_path / "repository"))
    OTHER.save_pretrained(folder / "other")
    tiny.model(len(OTHER), layers=2, spread=0.05).save_pretrained(folder / "other")
    for name in ("train init", "train distilled 7"):
        stage(folder, name)
    assert record(folder, "distilled-7")["validation_loss"] < record(folder, "init")["validation_loss"] - 0.1


@pytest.mark.slow
def test_an_adapter_learns_by_layers_and_goes_on_after_a_kill_to_the_same_bytes(finished, tmp_path):
    layers = {"pairs": [[3, 1]], "loss": "cosine", "projection": True, "weight": 1.0, "alone": 0.3}
    distilled = tiny.params()["train"]["distilled"] | {"layer_loss": layers}
    folder = adapted(copy_repository(finished, tmp_path / "repository"), {"distilled": distilled})
    path = folder / "params.yaml"
    value = yaml.safe_load(path.read_text())
    value["weight"]["layers"] = [3]
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    for name in ("weight", "train init", "train distilled 7"):
        stage(folder, name)
    assert record(folder, "distilled-7")["validation_loss"] < record(folder, "init")["validation_loss"] - 0.1
    assert not any("layer_projections" in name for name in load_file(folder / "models/distilled-7/model.safetensors"))
    whole = weights(folder)
    stop_command(folder, stage_command("train distilled 7"))
    assert "resuming from checkpoint-2" in stage(folder, "train distilled 7").stdout
    assert weights(folder) == whole


@pytest.mark.slow
def test_each_round_has_an_adapter_of_its_own_on_the_student_of_the_round_before(finished, tmp_path):
    rounds = {"number": 2, "start": "last", "average_decay": None}
    folder = adapted(copy_repository(finished, tmp_path / "repository"), {"rounds": rounds})
    stage(folder, "train distilled 7")
    whole = weights(folder)
    losses = record(folder, "distilled-7")["trainings"]
    first, second = losses["round-1"], losses["round-2"]
    assert second["first_validation_loss"] == pytest.approx(first["validation_loss"], abs=1e-3)
    stop_command(folder, stage_command("train distilled 7"), at="round-2/checkpoint-4/complete")
    said = stage(folder, "train distilled 7").stdout
    assert "round-1 has been trained" in said
    assert "resuming from checkpoint-2" in said
    assert weights(folder) == whole


@pytest.mark.slow
def test_a_student_on_a_quantized_base_goes_on_after_a_kill_to_the_same_bytes(finished, tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="optional: make qlora")
    folder = adapted(copy_repository(finished, tmp_path / "repository"), quantization="nf4")
    for name in ("train init", "train sft 7", "train distilled 7"):
        stage(folder, name)
    init, found, whole = record(folder, "init"), record(folder, "distilled-7"), weights(folder)
    assert found["adapter"]["bitsandbytes"] == bitsandbytes.__version__
    assert found["parameters"] == init["parameters"]
    assert found["merged_validation_loss"] < init["validation_loss"] - 0.1
    assert found["merged_validation_loss"] != found["validation_loss"]
    stop_command(folder, stage_command("train distilled 7"))
    assert "resuming from checkpoint-2" in stage(folder, "train distilled 7").stdout
    assert weights(folder) == whole
