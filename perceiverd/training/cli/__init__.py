"""`perceiverd train`: one command per step."""
