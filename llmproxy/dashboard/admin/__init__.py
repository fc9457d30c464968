"""The operator's pages: what the command line does, in a browser."""
