"""The text of a crontab: what its lines mean to cron, and our own lines in it. Pure: bytes in, bytes out.

    # heartbeat: begin NAME             a block: ours, between two markers; one for each home folder (its
    …                                   path) and one for the local backend (`local`)
    # heartbeat: end NAME
    # heartbeat: wrapped AGENT NAME: …  somebody's line that runs in the block now, held where it stood

Every other line stays byte for byte as it was, and taking ours out gives back what was there: but for a
newline at the very end, without which `crontab` takes no text. What somebody wrote among the lines of a
block is moved below it. Lines end with a newline and nothing else, as for cron.

What cron reads: load_env of Debian's env.c, load_entry of its entry.c, child_process of its do_command.c.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from heartbeat_cli.errors import CrontabProblem

BEGIN = b"# heartbeat: begin "
END = b"# heartbeat: end "
WRAPPED = b"# heartbeat: wrapped "
ENCODING = ("utf-8", "surrogateescape")

# NAME = value, where either may stand in quotes; a name without quotes ends at a blank or the first =
_VARIABLE = re.compile(
    rb"""[ \t]*(?:'(?P<single>[^'=]*)'|"(?P<double>[^"=]*)"|(?P<bare>[^\s='"#][^\s=]*))\s*=\s*"""
    rb"""(?:'(?P<one>[^']*)'\s*|"(?P<two>[^"]*)"\s*|(?P<value>[^\s'"].*))""",
    re.DOTALL,
)
# What we write into a block: jobs, and comments, of which those that are a name alone stand right above a job
_OUR_JOB = re.compile(rb"HEARTBEAT_HOME=.* (run|send|spool deliver) | local keep >/dev/null 2>&1$")
_OUR_COMMENT = re.compile(rb"# (made from .*|the spool: .*|[a-z0-9_-]+: proves that cron runs.*)\n?")
_OUR_LABEL = re.compile(rb"# [a-z0-9_-]+\n?")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_ENTRY = re.compile(rb"[ \t]*(?P<when>@[a-z]+|[^\s#@]\S*(?:[ \t]+\S+){4})[ \t]+(?P<command>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Entry:
    """A line that starts something: its number from 1, when (five fields or @reboot), and what a shell gets.

    `stdin` is what its command reads, None without an unescaped %. `block` is the block in which it stands.
    """

    number: int
    when: str
    command: bytes
    stdin: bytes | None
    block: str | None


def lines_of(text: bytes) -> list[bytes]:
    """The lines, each with its newline but perhaps the last."""
    return _LINE.findall(text)


def entries(text: bytes) -> Iterator[Entry]:
    """Every line that cron would start something from, in the order of the crontab."""
    blocks = _blocks(text)
    for number, line in enumerate(lines_of(text), start=1):
        bare = line.removesuffix(b"\n")
        if bare.lstrip(b" \t").startswith(b"#") or variable(bare):
            continue
        found = _ENTRY.fullmatch(bare)
        if found:
            inside = next((name for name, (first, last) in blocks.items() if first < number <= last), None)
            command, stdin = as_run(found["command"])
            yield Entry(number, found["when"].decode(*ENCODING), command, stdin, inside)


def variable(line: bytes) -> tuple[str, str] | None:
    """The environment variable that a line sets, for the lines below it; None where it is no such line."""
    found = _VARIABLE.fullmatch(line.removesuffix(b"\n"))
    if not found:
        return None
    name = found["single"] or found["double"] or found["bare"] or b""
    value = found["one"] or found["two"] or (found["value"] or b"").rstrip()
    return (name.decode(*ENCODING), value.decode(*ENCODING)) if name else None


def variables(text: bytes, before: int | None = None) -> dict[str, str]:
    """The environment that the lines above line `before` (from 1), or all, give to those below."""
    found = (variable(line) for line in lines_of(text)[: None if before is None else before - 1])
    return dict(pair for pair in found if pair)


def as_run(command: bytes) -> tuple[bytes, bytes | None]:
    r"""What the shell gets of a line's command, and the text after an unescaped %, which it gets as standard
    input (None without one). `\%` is a %, and `\\` a backslash; any other backslash stays.
    """
    out = bytearray()
    at = 0
    while at < len(command):
        char = command[at : at + 1]
        if char == b"%":
            return bytes(out), command[at + 1 :]
        if char == b"\\" and at + 1 < len(command):
            following = command[at + 1 : at + 2]
            out += following if following in b"%\\" else char + following
            at += 2
            continue
        out += char
        at += 1
    return bytes(out), None


def escaped(command: str) -> str:
    r"""`command` as it has to stand in a line for the shell to get it: the reverse of `as_run`."""
    return re.sub(r"\\(?=[\\%]|$)|%", lambda found: "\\" + found[0], command)


def block_of(text: bytes, name: str) -> list[bytes] | None:
    """The lines of a block without its markers, None where there is none. Raises `CrontabProblem`."""
    place = _blocks(text).get(name)
    return None if place is None else lines_of(text)[place[0] : place[1] - 1]


def block_names(text: bytes) -> list[str]:
    """The blocks of the crontab, in its order. Raises `CrontabProblem`."""
    return list(_blocks(text))


def block_begins(text: bytes, name: str) -> int:
    """The line in which a block begins, or would begin: below all others. Raises `CrontabProblem`."""
    place = _blocks(text).get(name)
    return len(lines_of(text)) + 1 if place is None else place[0]


def with_block(text: bytes, name: str, lines: Sequence[str]) -> bytes:
    """The text with this block: in the place of the one that is there, else below everything.

    Raises `CrontabProblem` when markers are damaged: then nobody knows what is ours.
    """
    text = _parted(text, name)
    own = [*(line.encode(*ENCODING) for line in lines)]
    block = b"".join(line + b"\n" for line in [BEGIN + name.encode(*ENCODING), *own, _end(name)])
    place = _blocks(text).get(name)
    if place is None:
        return text + (b"\n" if text and not text.endswith(b"\n") else b"") + block
    whole = lines_of(text)
    return b"".join([*whole[: place[0] - 1], block, *whole[place[1] :]])


def without_block(text: bytes, name: str) -> bytes:
    """The text without this block. Raises `CrontabProblem` as `with_block` does."""
    text = _parted(text, name)
    place = _blocks(text).get(name)
    if place is None:
        return text
    whole = lines_of(text)
    return b"".join([*whole[: place[0] - 1], *whole[place[1] :]])


def installed(text: bytes, name: str, lines: Sequence[str], commands: Mapping[str, str]) -> bytes:
    """The text with this block, and each plain line of a command that the block runs held as a comment.

    `commands` tells the command of each agent of the block. A line that was held for an agent of which the
    block runs nothing any more is put back. Raises `CrontabProblem` as `with_block` does.
    """
    text = _parted(text, name)
    wanted = {command.encode(*ENCODING): agent for agent, command in reversed([*commands.items()])}
    kept = _released(text, name, keep=frozenset(commands))
    plain = {entry.number: entry for entry in entries(kept) if entry.block is None and entry.stdin is None}
    whole = lines_of(kept)
    for number, entry in plain.items():
        agent = wanted.get(entry.command.strip())
        if agent is not None:
            whole[number - 1] = _held(agent, name) + whole[number - 1]
    return with_block(b"".join(whole), name, lines)


def removed(text: bytes, name: str) -> bytes:
    """The text without this block, and the lines that were held for it as they stood."""
    return _released(without_block(text, name), name)


def held(text: bytes, name: str) -> list[tuple[str, bytes]]:
    """The lines that are held for a block: (agent, the line as it stood)."""
    found = (_holding(name).match(line) for line in lines_of(text))
    return [(match[1].decode(), match.string[match.end() :]) for match in found if match]


def diff(was: bytes, text: bytes) -> list[str]:
    """What changes, for people: each line that goes (-) and each that comes (+)."""
    before, after = ([line.removesuffix(b"\n") for line in lines_of(side)] for side in (was, text))
    told = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            told += [f"  - {line.decode(*ENCODING)}" for line in before[a:b]]
            told += [f"  + {line.decode(*ENCODING)}" for line in after[c:d]]
    return told


def _parted(text: bytes, name: str) -> bytes:
    """The text with what others wrote into this block below it."""
    begins, ends = _blocks(text).get(name, (0, 0))
    jobs = {entry.number for entry in entries(text) if _OUR_JOB.search(entry.command)}
    set_here = [variable(line) for line in lines_of(text)[begins : max(begins, ends - 1)]]
    # for shells that cannot read our lines there are two: another one, and back
    shells = [given for given in set_here if given and given[0] == "SHELL"]

    def is_ours(number: int, line: bytes) -> bool:
        if not begins < number < ends or number in jobs or not line.strip():
            return True
        given = variable(line)
        if given is not None:
            return given[0] == "SHELL" and len(shells) == 2  # noqa: PLR2004
        label = _OUR_LABEL.fullmatch(line) and number + 1 in jobs
        return bool(label or _OUR_COMMENT.fullmatch(line))

    whole = lines_of(text)
    theirs = [line for number, line in enumerate(whole, start=1) if not is_ours(number, line)]
    if not theirs:
        return text
    kept = b"".join(line for number, line in enumerate(whole[:ends], start=1) if is_ours(number, line))
    return b"".join([kept.removesuffix(b"\n"), b"\n", *theirs, *whole[ends:]])


def _end(name: str) -> bytes:
    return END + name.encode(*ENCODING)


def _held(agent: str, name: str) -> bytes:
    return WRAPPED + f"{agent} {name}: ".encode(*ENCODING)


def _holding(name: str) -> re.Pattern[bytes]:
    return re.compile(WRAPPED + rb"([a-z0-9_-]+) " + re.escape(name.encode(*ENCODING)) + b": ")


def _released(text: bytes, name: str, keep: frozenset[str] = frozenset()) -> bytes:
    holding = _holding(name)

    def line_as_it_stood(line: bytes) -> bytes:
        found = holding.match(line)
        return line[found.end() :] if found and found[1].decode() not in keep else line

    return b"".join(map(line_as_it_stood, lines_of(text)))


def _blocks(text: bytes) -> dict[str, tuple[int, int]]:
    """Each block: the numbers of its two marker lines."""
    found: dict[str, tuple[int, int]] = {}
    open_name, opened = None, 0
    for number, line in enumerate(lines_of(text), start=1):
        bare = line.rstrip(b"\r\n")
        begins, ends = bare.startswith(BEGIN), bare.startswith(END)
        if not begins and not ends:
            continue
        name = bare.removeprefix(BEGIN if begins else END).decode(*ENCODING)
        if begins and open_name is None and name not in found:
            open_name, opened = name, number
        elif ends and open_name == name:
            found[name] = (opened, number)
            open_name = None
        else:
            raise _damaged(number, bare)
    if open_name is not None:
        raise _damaged(opened, BEGIN + open_name.encode(*ENCODING))
    return found


def _damaged(number: int, marker: bytes) -> CrontabProblem:
    said = marker.decode(*ENCODING)
    return CrontabProblem(
        f"line {number} of the crontab, '{said}', has no other that belongs to it, so nobody knows which"
        " lines are ours",
        hint="put it right with crontab -e: '# heartbeat: begin …' above our lines, '…: end …' below",
    )
