"""What a step sees: samplers, the stream of batches, and the processes that build it ahead."""
