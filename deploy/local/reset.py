"""`make reset`: forget everything that the local stack has stored."""

import shutil
import sys

from deploy.local.postgres import ROOT_HOME, data_location
from deploy.local.run import RUN
from deploy.local.running_lock import AlreadyRunningError, running_lock


def main() -> None:
    if not RUN.exists():
        print("There is nothing to forget.")
        return
    try:
        with running_lock(RUN):
            elsewhere = data_location(RUN / "postgres")
            if elsewhere.is_relative_to(ROOT_HOME) and elsewhere.exists():
                shutil.rmtree(elsewhere)
            shutil.rmtree(RUN)
    except AlreadyRunningError as error:
        sys.exit(str(error))
    print(f"Removed {RUN}.")


if __name__ == "__main__":
    main()
