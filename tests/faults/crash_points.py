"""Dies at every call of the engine that one piece of work makes, recovers, and looks at what happened.

    python -m tests.faults.crash_points KIND URL SCENARIO FOLDER

First the work is done once to count the calls. Then, for each call, one process dies before it and another after it
took effect but before it returned; all of them are real processes, forked before anything was connected. A process
without faults then does the rest. Prints `Findings` as JSON.
"""

import json
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq import Worker

from brokers import leases
from brokers.broker import EngineBroker
from brokers.engine import Engine, Finish
from tests.faults.actors import declare
from tests.faults.effects import Effects
from tests.faults.systems import make_broker

LEASE = timedelta(seconds=1.2)
HEARTBEAT_EVERY = timedelta(milliseconds=50)
REAP_EVERY = timedelta(milliseconds=100)
DRAIN_TIMEOUT_S = 30
AT_ONCE = 16
"""So many processes run at the same time; more would starve each other's heartbeats."""
MOST_CALLS = 4
"""Of one method; the further ones are looks of an idle worker."""
CALLS = ("create_group", "enqueue_many", "claim", "finish_many", "heartbeat", "reap", "release_many")
DIED = 9

Message = dramatiq.Message[Any]
Point = tuple[str, int, str]
"""Method, number of its call, and `before` or `after` it took effect."""


@dataclass
class Findings:
    """What a scenario came to.

    Attributes:
        died: Points at which a process died.
        problems: What should not have happened, each with its point.
    """

    died: list[Point] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scenario:
    """One piece of work.

    Attributes:
        messages: What is sent, made before any process is forked, so that sending again sends the same.
        send: Sends them.
        names: Of each message, also of those that follow, the name under which its effects are noted.
        runs: How often each name runs when nothing happens.
        last: The name that must come after all others.
    """

    messages: list[Message]
    send: Callable[[EngineBroker, list[Message]], None]
    names: dict[str, str]
    runs: dict[str, int]
    last: str = ""


def message(queue: str, actor: str, *args: object, **options: object) -> Message:
    return Message(queue_name=queue, actor_name=actor, args=args, kwargs={}, options=options)


def one(queue: str, plan: dict[str, Any], runs: int = 1, delay: int | None = None) -> Scenario:
    only = message(queue, "work", "one", plan)

    def send(broker: EngineBroker, messages: list[Message]) -> None:
        broker.enqueue(messages[0], delay=delay)

    return Scenario([only], send, {only.message_id: "one"}, {"one": runs})


def group(queue: str) -> Scenario:
    group_id = str(uuid.uuid4())
    callback = message(queue, "follow", "all")
    options = {"group_completion_uuid": group_id, "group_completion_callbacks": [callback.asdict()]}
    members = [message(queue, "work", f"member-{n}", {}, **options) for n in range(3)]

    def send(broker: EngineBroker, messages: list[Message]) -> None:
        broker.create_group(group_id, len(messages))
        broker.enqueue_many(messages)

    names = {m.message_id: str(m.args[0]) for m in [*members, callback]}
    return Scenario(members, send, names, dict.fromkeys(names.values(), 1), "all")


def pipeline(queue: str) -> Scenario:
    steps = [message(queue, "work", "first", {}), message(queue, "follow", "second")]

    def send(broker: EngineBroker, messages: list[Message]) -> None:
        dramatiq.pipeline(messages, broker=broker).run()

    names = {m.message_id: str(m.args[0]) for m in steps}
    return Scenario(steps, send, names, dict.fromkeys(names.values(), 1), "second")


SCENARIOS: dict[str, Callable[[str], Scenario]] = {
    "send": lambda queue: one(queue, {"sleep": 0.15}),
    "retry": lambda queue: one(queue, {"fail": 1}, runs=2),
    "delayed": lambda queue: one(queue, {}, delay=200),
    "group": group,
    "pipeline": pipeline,
}


# In a forked process


def work_off(broker: EngineBroker, scenario: Scenario, effects: Effects, queue: str) -> None:
    """Send, unless it is known that the messages were sent, and run a worker until nothing is left."""
    declare(broker, effects, queue)
    if not effects.of("sent"):
        scenario.send(broker, scenario.messages)
        effects.add("sent")
    # The hooks of this process's engine end the process; looking must not.
    looker = broker.engine
    worker = Worker(broker, worker_timeout=50, worker_threads=1)
    worker.start()
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while any(d.waiting + d.delayed + d.leased for d in looker.depths([queue])):
        if time.monotonic() > deadline:
            effects.add("stuck")
            break
        time.sleep(0.02)
    worker.stop()
    if looker.depths([queue])[0].dead:
        effects.add("dead")


def arm(engine: Engine, scenario: Scenario, effects: Effects, point: Point | None) -> None:
    """Make `engine` note its calls and finishes, and end the process at `point`."""
    calls: Counter[str] = Counter()
    for method in CALLS:
        setattr(engine, method, _armed(method, getattr(engine, method), calls, scenario, effects, point))


def _armed(
    method: str,
    call: Callable[..., Any],
    calls: Counter[str],
    scenario: Scenario,
    effects: Effects,
    point: Point | None,
) -> Callable[..., Any]:
    def armed(*args: Any, **options: Any) -> Any:
        calls[method] += 1
        effects.add("call", method)
        here = (method, calls[method])
        if point == (*here, "before"):
            os._exit(DIED)
        result = call(*args, **options)
        if method == "finish_many":
            note_finishes(effects, scenario, args[0], result)
        if point == (*here, "after"):
            os._exit(DIED)
        return result

    return armed


def note_finishes(effects: Effects, scenario: Scenario, finishes: Sequence[Finish], applied: Sequence[bool]) -> None:
    for finish, was_applied in zip(finishes, applied, strict=True):
        if was_applied:
            effects.add("finished", scenario.names[finish.message_id])


# In the process that forks


@dataclass
class Attempt:
    """One crash and the recovery from it."""

    point: Point | None
    scenario: Scenario
    queue: str
    effects: Effects
    unfinished: set[str] = field(default_factory=set)

    def fork(self, kind: str, url: str, *, recovers: bool) -> int:
        """Start a process that works; returns its id."""
        if pid := os.fork():
            return pid
        status = 1
        try:
            broker = make_broker(kind, url, lease=LEASE)
            assert isinstance(broker, EngineBroker)
            arm(broker.engine, self.scenario, self.effects, None if recovers else self.point)
            work_off(broker, self.scenario, self.effects, self.queue)
            status = 0
        except BaseException as error:  # noqa: BLE001 - told on stderr and by the status
            sys.stderr.write(f"{self.point}: {error!r}\n")
        finally:
            os._exit(status)

    def note_crash(self) -> None:
        """See what had run and was not finished: it may run a second time."""
        begun = self.effects.count("run") + self.effects.count("follow")
        self.unfinished = {name for name, runs in begun.items() if runs > self.effects.count("finished")[name]}

    def problems(self) -> list[str]:
        runs = self.effects.count("run") + self.effects.count("follow")
        found = []
        for name, wanted in self.scenario.runs.items():
            most = wanted + (name in self.unfinished)
            if not wanted <= runs[name] <= most:
                found.append(f"{name} ran {runs[name]} times, not {wanted} to {most}")
        ends = [line[1] for line in self.effects.all() if line[0] in {"end", "follow"}]
        missing = self.scenario.runs.keys() - set(ends)
        if missing:
            found.append(f"{missing} did not end")
        elif (last := self.scenario.last) and set(ends[: ends.index(last)]) != self.scenario.runs.keys() - {last}:
            found.append(f"{last} came before others: {ends}")
        found += [event for event in ("stuck", "dead") if self.effects.of(event)]
        return [f"{self.point}: {problem}; {self.effects.all()}" for problem in found]


def explore(kind: str, url: str, name: str, folder: Path) -> Findings:
    """Crash at every point of the scenario `name`."""
    findings = Findings()
    rehearsal = attempt(name, folder, None)
    if run_all([rehearsal], kind, url, recovers=False) != [0]:
        findings.problems.append("the rehearsal failed")
    findings.problems += rehearsal.problems()
    counts = rehearsal.effects.count("call")
    points = [
        (method, number, phase)
        for method in CALLS
        for number in range(1, min(MOST_CALLS, counts[method]) + 1)
        for phase in ("before", "after")
    ]
    for first in range(0, len(points), AT_ONCE):
        attempts = [attempt(name, folder, point) for point in points[first : first + AT_ONCE]]
        statuses = run_all(attempts, kind, url, recovers=False)
        for one_attempt in attempts:
            one_attempt.note_crash()
        recovered = run_all(attempts, kind, url, recovers=True)
        for tried, status, end in zip(attempts, statuses, recovered, strict=True):
            if status == DIED and tried.point:
                findings.died.append(tried.point)
            if status not in {0, DIED} or end != 0:
                findings.problems.append(f"{tried.point}: ended with {status}, the recovery with {end}")
            findings.problems += tried.problems()
    return findings


def attempt(name: str, folder: Path, point: Point | None) -> Attempt:
    queue = f"q-{uuid.uuid4().hex}"
    return Attempt(point, SCENARIOS[name](queue), queue, Effects(folder / queue))


def run_all(attempts: Sequence[Attempt], kind: str, url: str, *, recovers: bool) -> list[int]:
    """Run a process for each at the same time; returns their exit statuses."""
    pids = [one_attempt.fork(kind, url, recovers=recovers) for one_attempt in attempts]
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def main() -> None:
    kind, url, name, folder = sys.argv[1:]
    leases.HEARTBEAT_EVERY, leases.REAP_EVERY = HEARTBEAT_EVERY, REAP_EVERY
    sys.stdout.write(json.dumps(asdict(explore(kind, url, name, Path(folder)))))


if __name__ == "__main__":
    main()
