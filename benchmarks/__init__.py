"""How fast llmproxy is: `python -m benchmarks`."""
