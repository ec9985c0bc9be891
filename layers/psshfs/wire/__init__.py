"""SFTP requests and answers over byte streams, and what they cost in time."""
