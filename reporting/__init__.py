"""What evaluate_clear.py and demo.py report: tables of both tasks, and the pictures."""
