"""The pages of the documentation, and `docs.generate`, which writes those that the code already says."""
