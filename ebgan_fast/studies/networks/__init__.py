"""What the studies train beside the package's own EBGAN."""
