"""Training a student: samples, trainer, phases, online teacher, checkpoints, validation, trackers."""
