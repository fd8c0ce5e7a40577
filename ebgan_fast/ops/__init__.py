"""The ops: their definition (`reference`), one file by subject, how they join torch (`op`), and the `backends`."""
