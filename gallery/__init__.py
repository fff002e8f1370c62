"""The parts of the gallery; its entrance is `gallery_clear.py`."""
