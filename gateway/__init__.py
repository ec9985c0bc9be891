"""The ends that outside programs touch: the FUSE mount, mount options, daemon, stack strings."""
