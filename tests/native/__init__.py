"""Tests of the codecs: C beside a reference in plain Python, golden octets, hostile octets."""
