"""The one training loop: optimizer, processes, checkpoints, validation and the log."""
