"""The networks that the studies train beside the package's own EBGAN."""
