"""What is measured; `python -m bench --list` names it."""
