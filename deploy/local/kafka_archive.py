"""Starts Kafka once and keeps the classes that it loaded in an archive (JDK: class data sharing): later starts take half the time."""

import asyncio
import tempfile
from pathlib import Path

from deploy.local.kafka import CLASS_ARCHIVE, Kafka


async def main() -> None:
    CLASS_ARCHIVE.unlink(missing_ok=True)
    partial = CLASS_ARCHIVE.with_suffix(".partial")
    with tempfile.TemporaryDirectory() as directory:
        kafka = Kafka(Path(directory), java_options=(f"-XX:ArchiveClassesAtExit={partial}",))
        await kafka.start()
        await kafka.stop(budget=120)  # it writes the archive when it ends
    partial.rename(CLASS_ARCHIVE)


if __name__ == "__main__":
    asyncio.run(main())
