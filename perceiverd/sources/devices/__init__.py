"""What cameras and sound cards are called, who uses them, and what their timestamps mean."""
