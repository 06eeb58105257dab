"""What the benchmarks share: pools and file systems of their own, what they compare with, and how it is printed."""
