"""p2k: serves a file system of the emulated kernel as a FileServer."""
