"""Network families: members side by side, and the module that stands alone."""
