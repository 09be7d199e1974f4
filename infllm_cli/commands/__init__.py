"""One file per command: its options, and the glue between task and output."""
