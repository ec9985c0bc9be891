"""What programs will most likely ask for next, asked for now."""
