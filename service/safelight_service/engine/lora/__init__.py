"""LoRA: adapters of a model, read from files and mixed in its forwards."""
