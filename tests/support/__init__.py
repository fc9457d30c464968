"""What the tests of bytes, timing and faults share."""
