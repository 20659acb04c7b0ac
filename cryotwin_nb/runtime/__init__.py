"""Resources of the machine: distributed processes and available memory."""
