"""Work inside a stage: admission, batching, the device thread, estimates."""
