"""The long-context engine."""
