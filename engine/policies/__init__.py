"""Memory policies: which keys a block of queries attends, and what is kept afterwards."""
