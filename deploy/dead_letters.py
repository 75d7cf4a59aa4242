"""`make dead-letters`: what could not be handled, and why; `REPLAY=<id>` or `REPLAY=all` sends it back to where it came from.

What several consumers could not handle is listed for each, and sent back once. `TOPIC=` and `REASON=` narrow both. It works on the
cluster that KAFKA_BOOTSTRAP_SERVERS names, else on the running local stack.
"""

import asyncio
import logging
import os
import sys

from aiokafka.errors import KafkaError

from deploy.running_stack import environment
from libs.bus.errors import PublishFailed
from libs.bus.producer import Producer
from libs.bus.replay import DeadLetter, DeadLetterBox, UnknownDeadLetter, by_record, open_dead_letters
from libs.service_kit.kafka import Cluster, KafkaSettings
from libs.service_kit.settings import load_settings


async def run(kafka: Cluster, topic: str | None, reason: str | None, replay: str | None, force: bool) -> None:
    """List, or replay. Ends the process with the reason where it can't."""
    if replay == "all" and not (topic or reason):
        raise SystemExit("REPLAY=all needs TOPIC=… or REASON=…, so that nobody replays everything by mistake")
    async with open_dead_letters(kafka) as box:
        if not replay:
            show(await box.waiting(topic, reason), narrowed=bool(topic or reason))
            return
        if replay != "all":
            letter, replayed = await box.find(replay)
            if replayed and not force:
                raise SystemExit(f"{replay} was replayed before; FORCE=1 does it again")
            records = [await box.of_one_record(letter)]
        else:
            found = by_record(await box.waiting(topic))
            records = [
                letters for letters in found if reason is None or reason in {letter.reason for letter in letters}
            ]
        await send_back(box, kafka, records)


async def send_back(box: DeadLetterBox, kafka: Cluster, records: list[list[DeadLetter]]) -> None:
    """Each record once, of which these are the dead letters."""
    producer = Producer(kafka, client_id="dead-letters")
    await producer.start()
    replayed = 0
    try:
        for letters in records:
            try:
                await box.replay(letters, producer)
            except UnknownDeadLetter as error:
                print(error, flush=True)
                continue
            replayed += 1
            print(f"{', '.join(letter.id for letter in letters)} replayed to {letters[0].topic}", flush=True)
    finally:
        await producer.stop()
    print(f"{replayed} replayed")
    if replayed < len(records):
        raise SystemExit(1)


def show(letters: list[DeadLetter], *, narrowed: bool) -> None:
    none = "There are no such dead letters." if narrowed else "There are no dead letters."
    for letter in letters:
        print(
            f"{letter.id}  {letter.at:%Y-%m-%dT%H:%M:%SZ}  {letter.reason}  {letter.group}  {letter.message_id or '-'}"
        )
        if letter.words:
            print(f"    {letter.words}")
    print(f"{len(letters)} dead letters" if letters else none)


def main() -> None:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is raised too, and said below
    given = os.environ
    arguments = (given.get("TOPIC") or None, given.get("REASON") or None, given.get("REPLAY") or None)
    given.update(environment(given, "KAFKA_BOOTSTRAP_SERVERS"))
    kafka = load_settings(KafkaSettings).kafka
    try:
        asyncio.run(run(kafka, *arguments, given.get("FORCE") == "1"))
    except UnknownDeadLetter as error:
        sys.exit(str(error))
    except KafkaError as error:  # its words begin with its name
        sys.exit(f"Kafka: {error}")
    except (OSError, PublishFailed) as error:
        sys.exit(f"Kafka: {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
