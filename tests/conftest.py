"""Strict mode for the whole suite, and pytester for its own test."""

pytest_plugins = ["tests.strict", "pytester"]
