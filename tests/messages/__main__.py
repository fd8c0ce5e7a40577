"""Make docs/messages.md anew: `python -m tests.messages`."""

from .page import PAGE, write

write()
print(PAGE)
