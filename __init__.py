"""CLEAR under one import name, `clear_par`; the Hub loads the same root files one by one."""
