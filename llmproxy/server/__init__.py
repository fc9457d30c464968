"""The serving process: ASGI in front of the relay, health, start and stop."""
