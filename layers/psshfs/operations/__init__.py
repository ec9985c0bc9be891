"""The operations that the kernel above calls, by what they are about."""
