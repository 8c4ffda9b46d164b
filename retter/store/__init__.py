"""The stored responses and their owners."""
