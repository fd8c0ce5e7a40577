"""The ops: their definition (`reference`), their backends, and how they join torch (`library`, `autograd`)."""
