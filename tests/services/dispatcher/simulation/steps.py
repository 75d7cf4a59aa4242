"""What may happen next in a simulated gateway, and how it comes to rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from libs.contracts.events import CommandKind
from libs.contracts.statuses import NEGATIVE_FINALS, Status
from libs.service_kit.transient import is_transient
from services.dispatcher.lease import LeaseOver
from tests.services.dispatcher.simulation.process import LEASE_SECONDS, Process, Submit
from tests.services.dispatcher.simulation.properties import committed_is_concluded, written_is_stored
from tests.services.dispatcher.simulation.receipts import UNTIL_SWEPT_SECONDS
from tests.services.dispatcher.simulation.topic import Intake, Topic
from tests.services.dispatcher.simulation.world import DOUBTFUL, FATES, MOST_REPORTS, REPORTS, World

Step = tuple[str, Callable[[], Awaitable[None]]]
MOST_MESSAGES = 3
LONGEST = 1000
"""Steps: many more than any history takes that comes to rest."""
UNBIDDEN = TIME, MESSAGE, PROCESS, REPORT, READ = (
    "time passes",
    "a message comes",
    "a process starts",
    "the carrier reports",
    "the receipts service reads",
)
"""What does not follow from what was, or is done at last."""
USUAL = 3
"""How much likelier each step of the usual course is than each fault."""


async def happen(world: World, length: int) -> None:
    """Let so many steps happen, then come to rest."""
    await world.pass_time(0)
    await world.receipts.sweep(world.wall)
    await start(world)
    for intake in world.processes[0].intakes:
        intake.assign()
    if world.choose(3) == 1:
        await part(world)
    for _ in range(length):
        usual, faults = usual_steps(world), fault_steps(world)
        options = [step for step in usual for _ in range(USUAL)] + faults
        await take(world, options[world.choose(len(options))])
    await rest(world)


async def part(world: World) -> None:
    """Begin where most is at stake: a peer has taken over what a process has just written, and the process wakes up again."""
    first, peer = world.processes[0], await start(world)
    world.arrive()
    await take_over(world, first)
    await take(world, (f"{first.name} is frozen", partial(freeze, world, first, 3)))
    await take_over(world, peer)
    await take(world, (f"{first.name} wakes up", partial(wake, first)))


async def take_over(world: World, process: Process) -> None:
    """All that there is, and claim it."""
    for intake in process.intakes:
        intake.assign()
        while intake.may_fetch:
            intake.fetch()
    await take(world, (f"{process.name} has all that there is, and claims it", partial(work, world, process, "sender")))


async def take(world: World, step: Step) -> None:
    name, action = step
    assert len(world.story) < LONGEST, "it never comes to rest"
    world.story.append(f"{world.now - 1000:g}s {name}")
    await action()
    await written_is_stored(world)


def usual_steps(world: World) -> list[Step]:
    """The course of things: work, answers, time."""
    steps: list[Step] = []
    for p in world.processes:
        if p.frozen:
            continue
        if p.may_send and not p.closed:
            steps.append((f"{p.name} sends", partial(work, world, p, "sender")))
        if p.may_settle:
            steps.append((f"{p.name} settles", partial(work, world, p, "settler")))
        if not p.lease.valid:
            steps.append((f"{p.name} ends", partial(end, world, p)))
        for each in p.intakes:
            name = f"{p.name}, {each.topic.name}:"
            if each.may_fetch:
                steps.append((f"{name} fetches", partial(plain, each.fetch)))
            if each is each.topic.holder and each.marks.committable():
                steps.append((f"{name} commits", partial(commit, world, each)))
            if each.believes and each is not each.topic.holder:
                steps.append((f"{name} hears that it is gone", partial(plain, each.give_up)))
            if each.revoking:
                steps.append((f"{name} gives it back", partial(give_back, world, each)))
    for number, submit in enumerate(world.submits):
        if submit.fate is None:
            steps.append((f"the carrier decides {number}", partial(decide, world, submit)))
        elif not submit.answered and not submit.process.frozen:
            steps.append((f"{submit.fate} answers {number}", partial(answer, world, submit)))
        if submit.provider_id and len(submit.reported) < MOST_REPORTS:
            steps.append((REPORT, partial(report, world, submit)))
    for number, topic in enumerate(world.topics):
        if topic.holder is None or topic.holder.process.frozen:
            alive = [p for p in world.processes if not (p.closed or p.frozen)]
            steps += [(f"{topic.name} goes to {p.name}", partial(plain, p.intakes[number].assign)) for p in alive]
    if world.receipts.waiting:
        steps.append((READ, partial(world.receipts.read, world.choose)))
    if len(world.processes) < 2:
        steps.append((PROCESS, partial(start, world)))
    if len(world.messages) < MOST_MESSAGES:
        steps.append((MESSAGE, partial(plain, world.arrive)))
    if world.door:
        steps.append(("the resolver decides", partial(plain, world.resolve)))
    if world.commands:
        steps.append(("a command is heard", world.mark))
    steps.append((TIME, partial(world.pass_time, (0.2, 1.0, 4.0)[world.choose(3)])))
    return steps


def fault_steps(world: World) -> list[Step]:
    """What may befall it once more, and that what is frozen wakes up."""
    awakening = [(f"{p.name} wakes up", partial(wake, p)) for p in world.processes if p.frozen]
    return awakening + [
        (name, partial(spend, world, kind, action)) for kind, (name, action) in seldom(world) if world.left[kind]
    ]


def seldom(world: World) -> list[tuple[str, Step]]:
    """What seldom happens, by its kind."""
    found: list[tuple[str, str, Callable[[], Awaitable[None]]]] = []
    for p in world.processes:
        found.append(("kill", f"{p.name} is killed", partial(kill, world, p)))
        if p.frozen:
            continue
        claiming = p.works["sender"].under_way  # then it hurts most
        found += [("freeze", f"{p.name} is frozen", partial(freeze, world, p))] * (4 if claiming else 1)
        found.append(("drop", f"{p.name} loses its session", partial(plain, p.end_session)))
        for what, each in p.works.items():
            if each.under_way:
                lost = ConnectionResetError("lost")
                found.append(("lost", f"{p.name}'s {what} loses an answer", partial(work, world, p, what, lost)))
        for each in p.intakes:
            held = each is each.topic.holder
            if not held and not p.closed:
                found.append(("take", f"{p.name} is given {each.topic.name}", partial(plain, each.assign)))
            if held and not each.revoking:
                found.append(("move", f"{p.name} is to give {each.topic.name} back", partial(plain, each.revoke)))
    for number, submit in enumerate(world.submits):
        if not submit.given_up and not submit.answered and not submit.process.frozen:
            found.append(("late", f"the answer {number} is late", partial(plain, partial(world.give_up, submit))))
    for topic in world.topics:
        if topic.committed:
            found.append(("reset", f"the offsets of {topic.name} are reset", partial(reset, topic)))
        if topic.log:
            twice = partial(topic.log.append, topic.log[0])
            found.append(("again", f"a record of {topic.name} comes twice", partial(plain, twice)))
    if world.receipts.waiting:
        lost = partial(world.receipts.read, world.choose, lost=True)
        found.append(("unsaid", "the receipts service stores and does not tell", lost))
    if world.receipts.read_before:
        found.append(("reset", "the receipts service reads all anew", partial(plain, world.receipts.reset)))
    for number, each in enumerate(world.ids, 1):
        cancel, changed = (partial(world.command, each, kind) for kind in (CommandKind.CANCEL, CommandKind.RETURN))
        found.append(("cancel", f"{number} is to be cancelled", partial(plain, cancel)))
        found.append(("changed", f"the contact of {number} changes", partial(plain, changed)))
        status = world.shown(each).status
        if status in NEGATIVE_FINALS:
            found.append(("resend", f"{number} is sent again", partial(plain, partial(world.resend, each))))
        if status in DOUBTFUL:
            for word in (Status.FAILED, Status.DELIVERED):
                found.append(("word", f"{number} is said to be {word}", partial(plain, partial(world.say, each, word))))
    return [(kind, (name, action)) for kind, name, action in found]


async def rest(world: World) -> None:
    """No more faults: all that is under way goes on until nothing is left. What was never answered is in doubt."""
    world.story.append("-- to rest")
    for process in world.processes:
        process.frozen = False
    for _ in range(40):
        if not world.processes:
            await start(world)
        await to_its_end(world)
        if not (world.door or world.commands or busy(world)):
            break
        await world.pass_time(LEASE_SECONDS - 1)
    else:
        raise AssertionError("it never comes to rest")
    for process in [*world.processes]:  # what the last ones stored and did not tell is told by who outlives them
        await kill(world, process)
    last = await start(world)
    await world.pool.execute("UPDATE instances SET dead = true WHERE instance <> $1", last.lease.instance)
    await last.do(last.settler.publish_orphans)
    await world.receipts.read_all()
    world.now += UNTIL_SWEPT_SECONDS
    await world.receipts.sweep(world.wall)
    for submit in world.submits:
        if submit.provider_id and world.choose(4) == 0:
            await report(world, submit)
    await world.receipts.read_all()


async def to_its_end(world: World) -> None:
    """Until nothing is left to do before time passes. All have their turn."""
    while True:
        steps = [step for step in usual_steps(world) if step[0] not in UNBIDDEN] or unanswered(world)
        if not steps:
            return
        await take(world, steps[len(world.story) % len(steps)])


def unanswered(world: World) -> list[Step]:
    return [step for kind, step in seldom(world) if kind == "late"]


def busy(world: World) -> bool:
    return any(t.committed < len(t.log) for t in world.topics) or any(
        p.board._legs or p.may_settle for p in world.processes
    )


# What the steps do


async def plain(action: Callable[[], object]) -> None:
    action()


async def spend(world: World, kind: str, action: Callable[[], Awaitable[None]]) -> None:
    world.left[kind] -= 1
    await action()


async def start(world: World) -> Process:
    process = Process(world, f"p{next(world.names)}")
    world.processes.append(process)
    await process.do(process.lease.register)
    return process


async def work(world: World, process: Process, what: str, error: Exception | None = None) -> None:
    try:
        await process.work(what, lambda: world.choose(3) < 2, error)
    except LeaseOver:
        await end(world, process)
    except Exception as error:
        if not is_transient(error):
            raise


async def commit(world: World, intake: Intake) -> None:
    offsets, topic = intake.marks.committable(), intake.topic
    intake.marks.committed(offsets)
    await committed_is_concluded(world, topic.log[: offsets[intake.partition]])
    topic.committed = max(topic.committed, offsets[intake.partition])


async def give_back(world: World, intake: Intake) -> None:
    if intake is intake.topic.holder:
        if intake.marks.committable():
            await commit(world, intake)
        intake.topic.holder = None
    intake.give_up()


async def end(world: World, process: Process) -> None:
    """It stops in order; what it has heard is stored before its lease is given back."""
    if not process.closed:
        process.close()
        for each in process.works.values():
            if each is process.works["sender"]:
                await each.end()
    if process.may_settle and process.works["settler"] is not world.running:
        return
    if process.settler.idle:
        for intake in process.intakes:
            await give_back(world, intake)
        await process.do(process.lease.release)
        await kill(world, process)


async def kill(world: World, process: Process) -> None:
    await process.kill()
    world.processes.remove(process)
    for intake in process.intakes:
        if intake is intake.topic.holder:
            intake.topic.holder = None


async def freeze(world: World, process: Process, times: int | None = None) -> None:
    """For long, often: until its peers call its lease over."""
    process.frozen = True
    for _ in range(world.choose(4) if times is None else times):
        await world.pass_time(LEASE_SECONDS - 1)


async def wake(process: Process) -> None:
    process.frozen = False
    process.fire()


async def reset(topic: Topic) -> None:
    topic.committed = 0
    if topic.holder is not None:
        topic.holder.assign()


async def decide(world: World, submit: Submit) -> None:
    world.decide(submit, FATES[world.choose(len(FATES))])


async def answer(world: World, submit: Submit) -> None:
    world.answer(submit)


async def report(world: World, submit: Submit) -> None:
    world.report(submit, REPORTS[world.choose(len(REPORTS))])
