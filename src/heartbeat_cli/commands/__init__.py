"""The command line's declarations: options in, one call, an answer out. One module per capability."""
