"""What a breaker knows, for the next process: kept on disk, or handed over during a takeover."""
