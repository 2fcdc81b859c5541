"""What people look at, made from records and artifacts, never read back."""
