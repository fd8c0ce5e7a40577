"""Every message that a user's mistake can bring, command by command: each is caused, and shown on docs/messages.md."""
