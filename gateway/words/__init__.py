"""Words behind `-o`: those of the host and of stacks (options), of psshfs and ssh (sshwords), those
that people bring from sshfs (sshfswords), and the files that some of them name (idfiles)."""
