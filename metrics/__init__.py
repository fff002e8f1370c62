"""Metrics, without torch: one folder for each module of `evaluate`, which imports no project file.

Beside them what works on their results: intervals, calibration, and the scores of challenges.
"""
