"""What train.py is made of: settings, crops, and the two stages."""
