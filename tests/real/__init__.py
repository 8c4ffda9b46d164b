"""RETTER in front of real programs, over real sockets."""
