"""`python -m heartbeat_cli`: the same as the command `heartbeat`."""

from heartbeat_cli.cli import main

main()
