"""Lets `python -m llmproxy` do what the installed command does."""

from llmproxy.cli.app import main

if __name__ == "__main__":
    main()
