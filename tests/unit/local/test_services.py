"""The table of services knows every path that a service serves, and no path is served twice."""

from __future__ import annotations

import pytest

from deploy.local.services import PATH_PREFIXES, SERVICE_NAMES, WORKER_NAMES, load_service


@pytest.mark.parametrize("name", SERVICE_NAMES)
def test_a_service_can_be_loaded(name: str) -> None:
    service = load_service(name)

    assert service.name == name
    assert service.migrations
    assert (service.worker_part is not None) == (name in WORKER_NAMES)


def test_no_path_belongs_to_two_services() -> None:
    prefixes = [prefix for prefixes in PATH_PREFIXES.values() for prefix in prefixes]

    assert not [
        (one, other)
        for one in prefixes
        for other in prefixes
        if one != other and other.startswith(one)
    ]
