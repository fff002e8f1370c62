"""Importable data set builders; parts are imported from their own modules."""
