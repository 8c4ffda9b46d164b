"""How bodies are coded."""
