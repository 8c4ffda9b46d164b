"""Content codings of bodies."""
