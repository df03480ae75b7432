"""What a torture run does, decided before it begins: the same seed gives the same plan, on every machine.

Pure. The unit of the plan is the tick, between two of which every clock stands still. How long a tick really
takes, and who wins a race within one, is the machine's business: a plan is replayed, a schedule of the
operating system is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

MINUTE_MS = 60_000
TICK_MINUTES = 2  # what a tick is on all clocks; the sweep has to run each 5 minutes
HOUR_TICKS = 60 // TICK_MINUTES
AT_HOME = 0.75  # the part of an agent's heartbeats that its own host sends
BURST = 0.15  # the part of the sends that come several at once, on one host
BURST_SIZE = 4
ERRORS = 0.12  # the part of the heartbeats that report an error
LIFETIMES_MS = (300, 900)  # what is killed is killed within one of these: of an idle machine, and a busy one
KILL_WITHIN_MS = 150  # of a tick; a backend takes as long to start
DELIVER_EVERY = 11  # ticks between two runs of the crontab line that delivers
SLOWEST_S = 0.4  # the longest delay of a chunk that the proxy passes on
BYTES_LIMITS = (0, 100, 250, 600, 1_500, 4_000)  # after which the proxy interferes, at most
FILE_LIMITS = (0, 4_096, 20_480, 40_960, 81_920, 400_000)  # bytes: the largest file that a sender may write
ROOMS = (0, 4_096, 16_384, 65_536)  # bytes left on a disk that is full
SILENCE_HOURS = (1, 4)
DEADLINES_S = (2, 3, 5)
STATUSES = ("ok", "idle", "working", "blocked", "waiting")


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    ticks: int
    sends: int
    sender_kills: int
    deliver_kills: int
    backend_kills: int
    full_disks: int
    file_limits: int
    backend_jumps: int
    host_jumps: int
    silences: int  # spells in which an agent sends nothing
    hosts: tuple[str, ...]


SHORT = Size(
    ticks=30,
    sends=23,
    sender_kills=6,
    deliver_kills=1,
    backend_kills=2,
    full_disks=1,
    file_limits=1,
    backend_jumps=1,
    host_jumps=4,
    silences=2,
    hosts=("anna", "bert"),
)
LONG = Size(
    ticks=3_000,
    sends=2_200,
    sender_kills=320,
    deliver_kills=60,
    backend_kills=90,
    full_disks=60,
    file_limits=90,
    backend_jumps=14,
    host_jumps=60,
    silences=60,
    hosts=("anna", "bert", "cleo", "dora"),
)


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent as the schedule has it."""

    name: str
    every_minutes: int
    grace_minutes: int
    misses: int
    host: str


@dataclass(frozen=True, slots=True)
class Send:
    """One `heartbeat send`: killed `kill_ms` after its start, or with `file_limit` as its largest file."""

    tick: int
    number: int
    host: str
    agent: str
    status: str
    transport: str
    deadline_s: int
    kill_ms: int | None = None
    file_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Deliver:
    """One `heartbeat spool deliver` as a crontab has it; the `last` one leaves nothing."""

    tick: int
    host: str
    deadline_s: int
    kill_ms: int | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class BackendKill:
    """The backend's process is killed so long after the tick began, and started again so many ticks later.

    None: as soon as it has told a sender that a heartbeat is recorded.
    """

    tick: int
    after_ms: int | None
    down_ticks: int


@dataclass(frozen=True, slots=True)
class FullDisk:
    """A host's disk is full but for `room` bytes, from `tick` until before `until`."""

    tick: int
    until: int
    host: str
    room: int


@dataclass(frozen=True, slots=True)
class Jump:
    """A clock (`host` None: the backend's) is wrong by so much, from `tick` until before `until`."""

    tick: int
    until: int
    host: str | None
    minutes: int


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one connection through the proxy; see proxy.py. `after` is a number of bytes."""

    kind: str
    after: int = 0
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """All of one run."""

    seed: int
    size: Size
    agents: tuple[Agent, ...]
    sends: tuple[Send, ...]
    delivers: tuple[Deliver, ...]
    kills: tuple[BackendKill, ...]
    disks: tuple[FullDisk, ...]
    jumps: tuple[Jump, ...]

    def fate(self, connection: int) -> Fate:
        """That of the connection of this number."""
        random = Random(f"{self.seed} fate {connection}")  # noqa: S311 - no secret
        kind = random.choices([kind for kind, _ in _FATES], [weight for _, weight in _FATES])[0]
        return Fate(kind, random.randint(0, random.choice(BYTES_LIMITS)), random.uniform(0.02, SLOWEST_S))

    def wrong_minutes(self, host: str | None, tick: int) -> int:
        """By how much this clock (None: the backend's) is wrong in this tick."""
        return sum(
            jump.minutes for jump in self.jumps if jump.host == host and jump.tick <= tick < jump.until
        )


_FATES = (
    ("pass", 42),
    ("delay", 10),
    ("refuse", 5),
    ("swallow", 2),
    ("cut request", 7),
    ("cut answer", 7),
    ("lose answer", 15),
    ("half-close request", 4),
    ("half-close answer", 4),
    ("mute", 4),
)


def plan(seed: int, size: Size) -> Plan:
    """The plan of this seed."""
    random = Random(seed)  # noqa: S311 - no secret
    agents = _agents(size)
    return Plan(
        seed,
        size,
        agents,
        tuple(_sends(random, size, agents)),
        tuple(_delivers(random, size)),
        tuple(_kills(random, size)),
        tuple(_disks(random, size)),
        tuple(_jumps(random, size)),
    )


def _agents(size: Size) -> tuple[Agent, ...]:
    """Quick and slow ones, with one to three misses."""
    rules = [(16, 5, 1), (20, 5, 2), (30, 6, 2), (60, 6, 1), (44, 5, 3), (90, 9, 2), (120, 12, 1)]
    return tuple(
        Agent(f"agent-{number}", *rule, size.hosts[number % len(size.hosts)])
        for number, rule in enumerate(rules)
    )


def _sends(random: Random, size: Size, agents: tuple[Agent, ...]) -> list[Send]:
    silent = _silences(random, size, agents)
    ticks: list[int] = []
    while len(ticks) < size.sends:
        tick = random.randrange(1, size.ticks)
        ticks += [tick] * (BURST_SIZE if random.random() < BURST / BURST_SIZE else 1)
    ticks = sorted(ticks[: size.sends])
    # a killed sender says little about a full disk, and the other way round
    fates = ["kill"] * size.sender_kills + ["limit"] * size.file_limits
    fates += [""] * (size.sends - len(fates))
    random.shuffle(fates)
    sends: list[Send] = []
    for number, (tick, fate) in enumerate(zip(ticks, fates, strict=True)):
        agent = random.choice([one for one in agents if (one.name, tick) not in silent] or agents)
        host = agent.host if random.random() < AT_HOME else random.choice(size.hosts)
        if sends and sends[-1].tick == tick:
            host = sends[-1].host  # a burst contends for one spool
        sends.append(
            Send(
                tick,
                number,
                host,
                agent.name,
                "error" if random.random() < ERRORS else random.choice(STATUSES),
                random.choice(("ws", "http")),
                random.choice(DEADLINES_S),
                _kill_ms(random) if fate == "kill" else None,
                random.choice(FILE_LIMITS) if fate == "limit" else None,
            )
        )
    return sends


def _kill_ms(random: Random) -> int:
    return random.randrange(random.choice(LIFETIMES_MS))


def _silences(random: Random, size: Size, agents: tuple[Agent, ...]) -> set[tuple[str, int]]:
    silent: set[tuple[str, int]] = set()
    for _ in range(size.silences):
        agent, first = random.choice(agents).name, random.randrange(size.ticks)
        long = random.randint(SILENCE_HOURS[0] * HOUR_TICKS, SILENCE_HOURS[1] * HOUR_TICKS)
        silent |= {(agent, tick) for tick in range(first, first + long)}
    return silent


def _delivers(random: Random, size: Size) -> list[Deliver]:
    slots = [
        (tick, host)
        for number, host in enumerate(size.hosts)
        for tick in range(DELIVER_EVERY * (number + 1) // len(size.hosts), size.ticks, DELIVER_EVERY)
    ]
    killed = set(random.sample(range(len(slots)), size.deliver_kills))
    return [
        Deliver(
            tick,
            host,
            random.choice(DEADLINES_S),
            _kill_ms(random) if number in killed else None,
        )
        for number, (tick, host) in enumerate(sorted(slots))
    ]


def _kills(random: Random, size: Size) -> list[BackendKill]:
    """Spread over the run; some processes have only just been started, some absences are long."""
    every = size.ticks // size.backend_kills
    kills = []
    for number in range(size.backend_kills):
        down = random.choice((1, 2, 3, 5, 8, every // 2))
        after = random.choice((None, random.randrange(KILL_WITHIN_MS)))
        kills.append(BackendKill(number * every + random.randint(1, every // 2), after, down))
    return kills


def _spans(random: Random, size: Size, count: int, longest: int) -> list[tuple[int, int]]:
    """Where something lasts a while, and is over before the end."""
    first = [random.randrange(1, size.ticks - 1) for _ in range(count)]
    return [(tick, min(size.ticks, tick + random.randint(1, longest))) for tick in first]


def _disks(random: Random, size: Size) -> list[FullDisk]:
    return [
        FullDisk(tick, until, random.choice(size.hosts), random.choice(ROOMS))
        for tick, until in _spans(random, size, size.full_disks, size.ticks // 10 if size.ticks < 500 else 20)
    ]


def _jumps(random: Random, size: Size) -> list[Jump]:
    """Whole minutes, by hours, there and back; the backend's are rare, for they judge everybody anew."""
    hosts: list[str | None] = [random.choice(size.hosts) for _ in range(size.host_jumps)]
    who = hosts + [None] * size.backend_jumps
    spans = _spans(random, size, len(who), 12)
    return [
        Jump(tick, until, host, random.choice((-1, 1)) * random.randint(1, 6 * 60))
        for host, (tick, until) in zip(who, spans, strict=True)
    ]
