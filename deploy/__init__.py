"""How Postrider is run: on this machine, in containers, and an operator's commands. Standard library only: images have it too."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
