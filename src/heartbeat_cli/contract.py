"""The contract between this program and the functions: which version each side knows (rule 13).

Functions are deployed first, programs are updated later; either may be one version behind.
"""

from __future__ import annotations

from heartbeat_cli.contact import DEPLOY

VERSION = 2  # of what this program was written against
FAIL_AFTER_SINCE = 2  # of a schedule's agents
BATCHES_SINCE = 2  # mutations/recordHeartbeats, queries/getToken


def notes(known: object, deployment: str) -> list[str]:
    """What to tell people where a deployment states the version `known`; nothing where all is well."""
    if not isinstance(known, int) or known == VERSION:
        return []
    if known > VERSION:
        return [f"the functions at {deployment} are newer than this program: update it when you can"]
    return [f"the functions at {deployment} are older than this program, which does without; {DEPLOY}"]
