"""A small local provider that speaks the dialects, for `llmproxy demo` and the tests."""
