"""Training a student: data, trainer, phases, online teacher, checkpoints, validation, trackers.

The calls: stages/train.py -> phases.run_phases -> fit.fit -> trainer.DistillTrainer.compute_loss. On-policy responses
are written in DistillTrainer.get_batch_samples by on_policy.OnPolicy.batch.
"""
