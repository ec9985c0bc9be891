"""psshfs: serves a tree of an SFTP server as a FileServer."""
