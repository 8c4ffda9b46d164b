"""Words that all other packages share."""
