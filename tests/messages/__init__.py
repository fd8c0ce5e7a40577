"""Cause every message that a user's mistake can bring, command by command, and show each on docs/messages.md."""
