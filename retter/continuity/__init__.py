"""A breaker's knowledge for the next process: kept on disk, or handed over in a takeover."""
