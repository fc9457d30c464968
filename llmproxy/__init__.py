"""llmproxy: a metered proxy in front of paid LLM APIs."""

__version__ = "0.1.0"
