"""Every error this program raises on purpose.

    HeartbeatError                exit  code in JSON
    ├── UsageProblem                 2  usage        what was typed cannot be meant
    │   ├── SettingsProblem          2  settings     a setting (flag, variable, file) is missing or wrong
    │   ├── Declined                 2  usage        somebody was asked, and said no
    │   └── ScheduleProblem          2  schedule     cron-schedule.md cannot be read; each bad line is listed
    ├── Refused                      1  refused *    the deployment answered, and said no
    ├── Unreachable                 75  unreachable  no answer that counts; `cause` says why
    ├── SpoolProblem                 1  spool        the spool of this host cannot be used, or is full
    ├── CrontabProblem               1  crontab      the crontab of this host cannot be read, or not written
    ├── FunctionsProblem             1  functions    an app cannot take our functions, or not give them back
    ├── Spooled                     75  spooled      kept, not delivered, and --strict wants it delivered
    └── Lost                         1  lost         neither delivered nor kept

    * or the code of the deployment's own refusal: unauthorized, invalid, unknown_agent, conflict, slow_down

One place catches `HeartbeatError` (the command line) and prints `str(error)`, which is one sentence, and
`hint`, which is what to do next. Anything else that surfaces is a bug: its traceback is shown, exit 70.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

Cause = Literal[
    "refused",  # nothing listens there, or there is no way to the host
    "unresolved",  # the name has no address, or the resolver does not answer
    "timeout",  # reached, but no answer in time
    "tls",  # a TLS handshake failed, or only one of the two ends speaks TLS
    "wrong_address",  # this address cannot be a deployment's
    "not_convex",  # something else answers there
    "function_missing",  # a deployment without this function
    "server_error",  # the deployment, or what is in front of it, failed
    "cut",  # the connection was closed before the answer
]


class HeartbeatError(Exception):
    """Base of the tree: one sentence for people, without a secret in it, and a hint what to do next.

    `details` are further fields of the error in JSON; `notes` what else people should know.
    """

    exit_code: ClassVar[int] = 1
    code: str = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.details: dict[str, Any] = {}
        self.notes: Sequence[str] = ()


class UsageProblem(HeartbeatError):
    """What was typed, or handed over, cannot be meant. Nothing was sent and nothing was written."""

    exit_code = 2
    code = "usage"


class SettingsProblem(UsageProblem):
    """A setting is missing or wrong; the message names the setting and its value (never a token)."""

    code = "settings"


class Declined(UsageProblem):
    """Somebody was shown what would be done, asked, and said no: it was not done."""


class ScheduleProblem(UsageProblem):
    """Lines of the schedule file cannot be meant; `what` begins the sentence and names the file.

    `problems` lists each line as (number from 1, what is the matter), in the order of the file; one alone
    stands in the message.
    """

    code = "schedule"

    def __init__(self, what: str, problems: Sequence[tuple[int, str]], *, hint: str | None = None) -> None:
        line, trouble = problems[0]
        several = f"{what}: {len(problems)} problems"
        super().__init__(several if len(problems) > 1 else f"{what}, line {line}: {trouble}", hint=hint)
        self.problems = tuple(problems)
        self.details["problems"] = [{"line": line, "message": message} for line, message in problems]


class Refused(HeartbeatError):
    """The deployment answered and refused: a ConvexError of ours, or of the functions that run there.

    `code` is the refusal's own code (`unauthorized`, `invalid`, `unknown_agent`, `conflict`, `slow_down`), or
    `refused` when it has none; `data` is everything the refusal carried.
    """

    exit_code = 1
    code = "refused"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        data: Mapping[str, Any] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        if code:
            self.code = code
        self.data: dict[str, Any] = dict(data or {})


class Unreachable(HeartbeatError):
    """No answer that counts came from the deployment in time.

    `cause` is one of `Cause`. `maybe_done` is true when the call may have taken effect all the same (a
    mutation whose connection was cut after it was sent): sending it again with the same id is safe.
    """

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: worth trying again
    code = "unreachable"

    def __init__(
        self, message: str, *, cause: Cause, hint: str | None = None, maybe_done: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.cause = cause
        self.maybe_done = maybe_done


class SpoolProblem(HeartbeatError):
    """The spool of this host cannot be read or written, or has no room left; what it held is still there."""

    code = "spool"


class CrontabProblem(HeartbeatError):
    """The crontab of this user cannot be read, or not be changed; it is as it was."""

    code = "crontab"


class FunctionsProblem(HeartbeatError):
    """An app cannot be given our functions, or be freed of them; the message tells whether anything was
    written. `paths`: the files of the app that are the reason.
    """

    code = "functions"

    def __init__(self, message: str, *, paths: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.paths = tuple(paths)
        if paths:
            self.details["paths"] = list(paths)


class Spooled(HeartbeatError):
    """A heartbeat is kept and will be delivered, but its sender wanted it delivered now."""

    exit_code = 75
    code = "spooled"


class Lost(HeartbeatError):
    """A heartbeat could be neither delivered nor kept: nobody will hear of it."""

    code = "lost"
