"""What a trained run is worth: every measure that its protocol asks for, and that protocol.

Nothing is imported here; `evaluate.py` measures, `features.py` answers without torch.
"""
