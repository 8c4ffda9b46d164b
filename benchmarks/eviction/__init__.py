"""Eviction from a full store: traces of requests against the store's own queues and against LRU."""
