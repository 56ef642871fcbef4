"""What is written by a program and committed: help pages, tables, example workflows."""
