"""Kernels have no package file (a top-level one would shadow another distribution)."""
