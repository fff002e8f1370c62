"""Evaluate modules of both tasks, one folder each, that import no torch and no project file."""
