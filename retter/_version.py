"""The version, alone in a module so that the build reads it without importing the rest."""

VERSION = "0.1.0"
