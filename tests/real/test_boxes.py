"""Several boxes with a real server: what the first stored, the second serves; a dead server hurts
nobody.
"""
