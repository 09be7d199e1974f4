"""Preset model configurations (YAML) and the built-in model."""
