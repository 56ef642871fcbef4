"""A run, whole or in part, in memory and on disk."""
