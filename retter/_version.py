"""The version, alone in a module so that the build reads it without importing the rest."""

VERSION = "1.0.0rc1"
