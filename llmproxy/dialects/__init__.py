"""The wire formats: bytes in, values out. Pure: no I/O, no clock, no money."""
