"""One run of TRL's GKDTrainer in a process of its own: `python -m tools.bench.gkd FOLDER`.

Off-policy (lmbda 0) on the teacher's texts, beta 0 (TRL's forward KL), temperature 1, TRL's own collator on the same
token ids in the same batches, the schedule of train.optimization. Gradient checkpointing, TRL's default, is off: it is
slower, and ours has none.
"""

import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.experimental.gkd import GKDConfig, GKDTrainer

from distill.core.files import read_rows, write_json
from distill.modeling import runtime
from distill.params.loading import load_params
from distill.params.train import Optimization
from distill.training.trainer import training_arguments
from tools.bench import plan as plans

SAME = (  # as ours
    "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate", "warmup_steps",
    "lr_scheduler_type", "weight_decay", "max_grad_norm", "optim", "logging_steps", "dataloader_num_workers",
    "dataloader_pin_memory", "seed", "use_cpu",
)  # fmt: skip


def configuration(folder: Path, optimization: Optimization, steps: int, seed: int, dtype: torch.dtype) -> GKDConfig:
    """TRL's configuration of the same training."""
    ours = training_arguments(folder, optimization, steps, seed)
    return GKDConfig(
        output_dir=str(folder),
        **{name: getattr(ours, name) for name in SAME},
        lmbda=0.0,
        beta=0.0,
        temperature=1.0,
        max_length=optimization.max_length,
        train_sampling_strategy="sequential",
        gradient_checkpointing=False,
        bf16=dtype == torch.bfloat16,
        save_strategy="no",
        report_to="none",
    )


def main() -> None:
    folder = Path(sys.argv[1])
    plan, params = plans.read(folder), load_params()
    dtype = runtime.compute_dtype(params.runtime.dtype)
    torch.set_num_threads(params.runtime.threads)
    clock = plans.Clock(plan)
    trainer = GKDTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / plans.FULL, dtype=torch.float32),
        teacher_model=AutoModelForCausalLM.from_pretrained(folder / plans.TEACHER, dtype=dtype),
        args=configuration(folder / "trl", params.train.optimization, plan.steps, params.data_seed, dtype),
        train_dataset=Dataset.from_list(list(read_rows(folder / plans.ROWS, "python -m tools.bench train"))),
        processing_class=AutoTokenizer.from_pretrained(folder / plans.TEACHER),
        callbacks=[clock],
    )
    trainer.train()
    trainer.model.save_pretrained(folder / "trl")
    trainer.processing_class.save_pretrained(folder / "trl")
    write_json(folder / "trl" / plans.RESULT, clock.result)


if __name__ == "__main__":
    main()
