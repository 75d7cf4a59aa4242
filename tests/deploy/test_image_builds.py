"""What goes into an image build, and from where."""

import re

from deploy import REPOSITORY
from deploy.containers import host_settings, runtime_requirements


def test_the_runtime_lock_is_the_part_of_the_whole_lock_that_services_need() -> None:
    written = runtime_requirements.RUNTIME_LOCK.read_text()
    assert written == runtime_requirements.runtime_lock(), "run python -m deploy.containers.runtime_requirements"


def test_the_runtime_lock_has_no_development_tools() -> None:
    names = set(runtime_requirements.lock_entries(runtime_requirements.RUNTIME_LOCK.read_text()))
    assert {"aiokafka", "asyncpg", "uvloop", "pydantic-core"} <= names
    assert not names & {"pytest", "ruff", "pyright", "hypothesis", "aiosmpplib"}


def test_the_operators_command_is_in_the_image_with_all_that_it_imports_from_here() -> None:
    command = (REPOSITORY / "deploy/dead_letters.py").read_text()
    needed = {"__init__", "dead_letters", *re.findall(r"^from deploy\.(\w+) import", command, flags=re.MULTILINE)}
    dockerfile = (REPOSITORY / "deploy/images/services/Dockerfile").read_text()
    assert needed <= set(re.findall(r"deploy/(\w+)\.py ", dockerfile))


INDEX = "index-url"


def test_the_machines_index_is_handed_on_and_its_paths_are_not() -> None:
    listed = "\n".join(
        [
            "global.cert='/etc/ssl/certs/ca-certificates.crt'",
            f"global.{INDEX}='https://one.example/simple'",
            f":env:.{INDEX}='https://two.example/simple'",
            ":env:.find-links='/opt/wheels'",
            r"global.trusted-host='\none.example\ntwo.example'",
        ]
    )
    hosts = "trusted-host = \n    one.example\n    two.example\n"
    assert host_settings.pip_settings(listed) == f"[global]\n{INDEX} = https://two.example/simple\n{hosts}"


def test_of_apts_settings_the_proxies_are_handed_on() -> None:
    dumped = 'APT::Architecture "amd64";\nAcquire::http::Proxy "http://proxy.example:3128";\nAcquire::Retries "3";\n'
    dumped += 'Acquire::http::Timeout "5";\n'
    assert host_settings.apt_settings(dumped) == 'Acquire::http::Proxy "http://proxy.example:3128";\n'
