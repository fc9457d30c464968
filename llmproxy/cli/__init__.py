"""The command line: one file per noun. Heavy modules are imported inside the commands only."""
