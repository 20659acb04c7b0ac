"""The command line: `cryotwin COMMAND`, its options generated from the functions that they reach."""
