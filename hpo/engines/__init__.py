"""Where workers run, and who looks after them."""
