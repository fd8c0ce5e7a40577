"""Write docs/messages.md from the cases: `python -m tests.messages`."""

from .page import PAGE, write

write()
print(PAGE)
