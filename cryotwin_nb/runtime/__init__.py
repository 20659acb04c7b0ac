"""What the machine offers: several processes that share the work, and free memory."""
