"""The fused ops: their definition (`reference`), their files by subject, the join with torch (`op`), and `backends`."""
