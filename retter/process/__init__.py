"""Life and signals of the process."""
