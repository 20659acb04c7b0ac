"""Command-line interface `cryotwin COMMAND`, with options generated from the signatures of the functions called."""
