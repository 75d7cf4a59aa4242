"""What the documents name is there."""

import re
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase

from deploy import REPOSITORY
from libs.service_kit import metrics

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


@every_page
def test_its_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@every_page
def test_its_commands_are_in_the_makefile(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`(?:[A-Z]+=\S+ )*make ([a-z-]+)", page.read_text())) <= targets


@every_page
def test_its_metrics_are_exported(page: Path) -> None:
    names = {m.describe()[0].name for m in vars(metrics).values() if isinstance(m, MetricWrapperBase)}
    exported = names | {f"{name}_total" for name in names}
    assert set(re.findall(r"\bpostrider_[a-z_]+[a-z]\b", page.read_text())) <= exported
