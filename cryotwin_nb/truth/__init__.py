"""The embedded molecules, and what is known of simulated images because they were made."""
