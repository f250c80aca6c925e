"""Command lines, made from declarations of settings."""
