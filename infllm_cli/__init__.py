"""The `infllm` command: documents in, answers out."""
