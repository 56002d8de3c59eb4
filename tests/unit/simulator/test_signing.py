"""The simulator signs notices exactly as the protocol reference and the real gateway do."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest

from services.simulator.sslcommerz.signing import sign

SAMPLE_KEYS = (
    "amount,bank_tran_id,base_fair,card_brand,card_issuer,card_issuer_country,"
    "card_issuer_country_code,card_no,card_type,currency,currency_amount,currency_rate,"
    "currency_type,risk_level,risk_title,status,store_amount,store_id,tran_date,tran_id,val_id,"
    "value_a,value_b,value_c,value_d"
)
FAILED_KEYS = (
    "amount,bank_tran_id,base_fair,card_brand,card_issuer,card_issuer_country,"
    "card_issuer_country_code,card_no,card_type,currency,currency_amount,currency_rate,"
    "currency_type,error,status,store_id,tran_date,tran_id,value_a,value_b,value_c,value_d"
)
NOTHING_ECHOED = {"value_a": "", "value_b": "", "value_c": "", "value_d": ""}

OFFICIAL_SAMPLE = {
    "tran_id": "5E121A0D01F92",
    "val_id": "200105225826116qFnATY9sHIwo",
    "amount": "10.00",
    "card_type": "VISA-Dutch Bangla",
    "store_amount": "9.75",
    "card_no": "418117XXXXXX6675",
    "bank_tran_id": "200105225825DBgSoRGLvczhFjj",
    "status": "VALID",
    "tran_date": "2020-01-05 22:58:21",
    "currency": "BDT",
    "card_issuer": "TRUST BANK, LTD.",
    "card_brand": "VISA",
    "card_issuer_country": "Bangladesh",
    "card_issuer_country_code": "BD",
    "store_id": "test_testemi",
    "currency_type": "BDT",
    "currency_amount": "10.00",
    "currency_rate": "1.0000",
    "base_fair": "0.00",
    **NOTHING_ECHOED,
    "risk_level": "0",
    "risk_title": "Safe",
}
IN_BDT = {
    "amount": "1150.00",
    "bank_tran_id": "26010512000001AbCdEfGhIjKl",
    "base_fair": "0.00",
    "card_brand": "VISA",
    "card_issuer": "DEMO BANK, LTD.",
    "card_issuer_country": "Bangladesh",
    "card_issuer_country_code": "BD",
    "card_no": "411111XXXXXX1111",
    "card_type": "VISA-Demo Bank",
    "currency": "BDT",
    "currency_amount": "1150.00",
    "currency_rate": "1.0000",
    "currency_type": "BDT",
    "risk_level": "0",
    "risk_title": "Safe",
    "status": "VALID",
    "store_amount": "1121.25",
    "store_id": "demo_store01",
    "tran_date": "2026-01-05 12:00:00",
    "tran_id": "INV-000123-A1",
    "val_id": "260105120000VaLiDaTiOnId01",
    **NOTHING_ECHOED,
    "value_a": "cus_1001",
}
IN_USD = {
    **IN_BDT,
    "amount": "1220.00",
    "currency_amount": "10.00",
    "currency_type": "USD",
    "currency_rate": "122.0000",
    "store_amount": "1189.50",
    "tran_id": "INV-000124-A1",
    "bank_tran_id": "26010512050002MnOpQrStUvWx",
    "val_id": "260105120500VaLiDaTiOnId02",
    "tran_date": "2026-01-05 12:05:00",
    "risk_level": "1",
    "risk_title": "Risky",
}
FAILED = {
    "amount": "1150.00",
    "bank_tran_id": "26010512100003FaIlEdAtTeMp",
    "base_fair": "0.00",
    "card_brand": "VISA",
    "card_issuer": "DEMO BANK, LTD.",
    "card_issuer_country": "Bangladesh",
    "card_issuer_country_code": "BD",
    "card_no": "411111XXXXXX1111",
    "card_type": "VISA-Demo Bank",
    "currency": "BDT",
    "currency_amount": "1150.00",
    "currency_rate": "1.0000",
    "currency_type": "BDT",
    "error": "Invalid expiration date",
    "status": "FAILED",
    "store_id": "demo_store01",
    "tran_date": "2026-01-05 12:10:00",
    "tran_id": "INV-000125-A1",
    **NOTHING_ECHOED,
}


@pytest.mark.parametrize(
    ("fields", "keys", "password", "md5", "sha256"),
    [
        pytest.param(
            OFFICIAL_SAMPLE,
            SAMPLE_KEYS,
            "test_testemi@ssl",
            "d42fab70ae0bcbda5280e7baffef60b0",
            "02c0417ff467c109006382d56eedccecd68382e47245266e7b47abbb3d43976e",
            id="official sample",
        ),
        pytest.param(
            IN_BDT,
            SAMPLE_KEYS,
            "demo_pass@ssl",
            "45c6ea76d58328b488874f9176ec0347",
            "a5cb1cd361b51d934d687c0cbb15757d2dbf7686b15aa321ed1ac5a0b58f84e6",
            id="in BDT",
        ),
        pytest.param(
            IN_USD,
            SAMPLE_KEYS,
            "demo_pass@ssl",
            "1ec29290b44054a2ecc9b4caf6083fd0",
            "cb395534761be3bff8c7ab367fd71050f407642eeeca8762844906ef4e74949d",
            id="in USD and risky",
        ),
        pytest.param(
            FAILED,
            FAILED_KEYS,
            "demo_pass@ssl",
            "e18d307bd202fe0295672f03bff82c16",
            "2851018ea0f8d68d24f5b8ef51d0890ddbb10530865bd2a719fdde5075d46440",
            id="failed",
        ),
    ],
)
def test_the_known_signatures_are_made(
    fields: dict[str, str], keys: str, password: str, md5: str, sha256: str
) -> None:
    expected = {"verify_key": keys, "verify_sign": md5, "verify_sign_sha2": sha256}

    assert expected == sign(fields, fields, password)


def test_a_field_that_is_not_signed_changes_nothing() -> None:
    signature = sign(IN_BDT, IN_BDT, "demo_pass@ssl")

    with_more = sign({**IN_BDT, "card_sub_brand": "Classic"}, IN_BDT, "demo_pass@ssl")

    assert signature == with_more


def test_empty_values_survive_the_way_to_the_merchant() -> None:
    form = IN_BDT | sign(IN_BDT, IN_BDT, "demo_pass@ssl")

    received = dict(parse_qsl(urlencode(form), keep_blank_values=True))

    assert form == received
    assert received["verify_sign"] == sign(received, IN_BDT, "demo_pass@ssl")["verify_sign"]
