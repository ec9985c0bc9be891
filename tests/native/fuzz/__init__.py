"""Fuzzers of the C codecs, in C, and the program that runs them."""
