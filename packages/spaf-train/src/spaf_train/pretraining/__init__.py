"""Pre-training from a corpus to a model directory: configuration, presets, vocabulary, card."""
