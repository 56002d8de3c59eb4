"""What a load sends is the same for the same seed, and leaves what happens to the profile."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import orjson
import pytest

from deploy.local.command import main
from deploy.local.load_plan import GATEWAYS, PROFILES, ProfileError, plan, read_profile
from services.simulator.profiles import Profile


def test_the_same_seed_makes_the_same_payments() -> None:
    assert plan(100, GATEWAYS, 1) == plan(100, GATEWAYS, 1)
    assert plan(100, GATEWAYS, 1) != plan(100, GATEWAYS, 2)


def test_payments_cycle_through_the_gateways_and_what_each_can_do() -> None:
    transactions = plan(100, ["fapshi", "stripe"], 1)

    assert [each.number for each in transactions] == list(range(100))
    assert Counter(each.gateway for each in transactions) == {"fapshi": 50, "stripe": 50}
    methods = Counter(each.method["type"] for each in transactions if each.gateway == "fapshi")
    assert methods == {"prompt": 25, "checkout": 25}


def test_no_amount_is_magic_to_the_simulator() -> None:
    assert {each.amount % 100 for each in plan(500, GATEWAYS, 1)} == {0}


@pytest.mark.parametrize("name", PROFILES)
def test_a_built_in_profile_is_one_that_the_simulator_takes(name: str) -> None:
    profile = Profile.model_validate(read_profile(name, seed=7))

    assert profile.seed == 7
    assert profile.customers_act


def test_the_rough_profile_has_the_shares_that_it_promises() -> None:
    profile = read_profile("rough", seed=1)

    assert profile["fates"] == {"timeout_after": 10, "declined": 10, "error_500": 5}
    assert profile["notices"] == {"duplicate": 5, "never": 5}


def test_a_profile_of_a_file_keeps_its_own_seed(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes(orjson.dumps({"seed": 3, "fates": {"declined": 50}}))

    assert read_profile(str(file), seed=7) == {"seed": 3, "fates": {"declined": 50}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "--profile must be smooth, rough or a file"),
        (b"{", "is not JSON"),
        (b"[]", "is not a JSON object"),
    ],
)
def test_a_profile_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ProfileError, match=re.escape(problem)):
        read_profile(str(file), seed=7)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--transactions", "0"], "'0' is not a number above 0"),
        (["--transactions", "many"], "'many' is not a number above 0"),
        (["--rate", "nan"], "'nan' is not a number above 0"),
        (["--gateways", "stripe,paypal"], "'paypal' is not one of sslcommerz, fapshi"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["load", *arguments])

    assert complaint in capsys.readouterr().err


def test_an_address_without_a_key_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLUICE_API_KEY", raising=False)

    assert main(["load", "--url", "http://127.0.0.1:1"]) == 2

    assert "--url needs --key" in capsys.readouterr().err
