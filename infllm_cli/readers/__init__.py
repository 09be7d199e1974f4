"""Ways to read documents for one question, in place of a memory that serves them all."""
