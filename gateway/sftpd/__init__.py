"""The daemon `puffs_sftpd`: SSH by processes of its own, SFTP by sessions of this one."""
