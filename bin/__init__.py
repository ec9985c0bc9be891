"""One module per command, `main(argv)` -> exit status: parse, build, run."""
