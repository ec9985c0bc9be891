"""What there is once for a mount: its session, what it believes and for how long."""
