"""The one SQLite file: its connections, locks, writer thread and schema."""
