"""A lost connection: brought back, and the mount made whole over it."""
