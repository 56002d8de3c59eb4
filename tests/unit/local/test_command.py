"""The command line: what it offers, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.command import SUBCOMMANDS, main


def test_help_lists_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])

    words = capsys.readouterr().out.split()
    assert not [name for name in SUBCOMMANDS if name not in words]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["up", "--port", "0"], "'0' is not a port between 1 and 65535"),
        (["up", "--port", "http"], "'http' is not a port"),
        (["serve", "webhok"], "invalid choice: 'webhok'"),
        (["worker", "simulator"], "invalid choice: 'simulator'"),
        (["front-door", "--process", "webhook-http"], "'webhook-http' is not NAME=URL"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "required: COMMAND"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)

    assert complaint in capsys.readouterr().err


def test_a_port_without_room_for_the_others_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", "--port", "65525", "--data-dir", str(tmp_path)]) == 2

    assert capsys.readouterr().err == "sluice: --port must be at most 65524\n"


def test_an_unknown_service_is_not_migrated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "webhook", "webhok"]) == 2

    assert capsys.readouterr().err == "sluice: no service is called webhok\n"
