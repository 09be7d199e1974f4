"""Models on this machine: what is here, what may be fetched, which one is the default."""
