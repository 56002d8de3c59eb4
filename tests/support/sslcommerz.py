"""SSLCommerz notices for tests: vectors with known hashes, and a second reading of the protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import urlencode

from tests.support.settings import STORE_ID, STORE_PASSWORD

#: Signed in real provider output (the official sample); in alphabetical order, as sent.
SIGNED_KEYS = (
    "amount,bank_tran_id,base_fair,card_brand,card_issuer,card_issuer_country,"
    "card_issuer_country_code,card_no,card_type,currency,currency_amount,currency_rate,"
    "currency_type,risk_level,risk_title,status,store_amount,store_id,tran_date,tran_id,val_id,"
    "value_a,value_b,value_c,value_d"
)

#: The sample in the README of sslcommerz/SSLCommerz-Python: real provider output.
OFFICIAL_STORE_ID = "test_testemi"
OFFICIAL_PASSWORD = "test_testemi@ssl"
OFFICIAL_SAMPLE: dict[str, str] = {
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
    "store_id": OFFICIAL_STORE_ID,
    "currency_type": "BDT",
    "currency_amount": "10.00",
    "currency_rate": "1.0000",
    "base_fair": "0.00",
    "value_a": "",
    "value_b": "",
    "value_c": "",
    "value_d": "",
    "risk_level": "0",
    "risk_title": "Safe",
    "verify_key": SIGNED_KEYS,
    "verify_sign": "d42fab70ae0bcbda5280e7baffef60b0",
    "verify_sign_sha2": "02c0417ff467c109006382d56eedccecd68382e47245266e7b47abbb3d43976e",
}

#: A payment in BDT, byte for byte as a notice comes in; `card_sub_brand` is sent but not signed.
PAID_BODY = (
    b"amount=1150.00&bank_tran_id=26010512000001AbCdEfGhIjKl&base_fair=0.00&card_brand=VISA"
    b"&card_issuer=DEMO+BANK%2C+LTD.&card_issuer_country=Bangladesh&card_issuer_country_code=BD"
    b"&card_no=411111XXXXXX1111&card_type=VISA-Demo+Bank&currency=BDT&currency_amount=1150.00"
    b"&currency_rate=1.0000&currency_type=BDT&risk_level=0&risk_title=Safe&status=VALID"
    b"&store_amount=1121.25&store_id=demo_store01&tran_date=2026-01-05+12%3A00%3A00"
    b"&tran_id=INV-000123-A1&val_id=260105120000VaLiDaTiOnId01&value_a=cus_1001&value_b=&value_c="
    b"&value_d=&verify_key=amount%2Cbank_tran_id%2Cbase_fair%2Ccard_brand%2Ccard_issuer"
    b"%2Ccard_issuer_country%2Ccard_issuer_country_code%2Ccard_no%2Ccard_type%2Ccurrency"
    b"%2Ccurrency_amount%2Ccurrency_rate%2Ccurrency_type%2Crisk_level%2Crisk_title%2Cstatus"
    b"%2Cstore_amount%2Cstore_id%2Ctran_date%2Ctran_id%2Cval_id%2Cvalue_a%2Cvalue_b%2Cvalue_c"
    b"%2Cvalue_d&verify_sign=45c6ea76d58328b488874f9176ec0347&verify_sign_sha2="
    b"a5cb1cd361b51d934d687c0cbb15757d2dbf7686b15aa321ed1ac5a0b58f84e6&card_sub_brand=Classic"
)

PAID: dict[str, str] = {
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
    "store_id": STORE_ID,
    "tran_date": "2026-01-05 12:00:00",
    "tran_id": "INV-000123-A1",
    "val_id": "260105120000VaLiDaTiOnId01",
    "value_a": "cus_1001",
    "value_b": "",
    "value_c": "",
    "value_d": "",
    "verify_key": SIGNED_KEYS,
    "verify_sign": "45c6ea76d58328b488874f9176ec0347",
    "verify_sign_sha2": "a5cb1cd361b51d934d687c0cbb15757d2dbf7686b15aa321ed1ac5a0b58f84e6",
}

#: A payment in USD that the gateway converted, and calls risky.
PAID_IN_USD: dict[str, str] = PAID | {
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
    "verify_sign": "1ec29290b44054a2ecc9b4caf6083fd0",
    "verify_sign_sha2": "cb395534761be3bff8c7ab367fd71050f407642eeeca8762844906ef4e74949d",
}

_FAILED_FIELDS: dict[str, str] = {
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
    "store_id": STORE_ID,
    "tran_date": "2026-01-05 12:10:00",
    "tran_id": "INV-000125-A1",
    "value_a": "",
    "value_b": "",
    "value_c": "",
    "value_d": "",
}

#: A declined payment; it has no `val_id` and no `risk_level`.
FAILED: dict[str, str] = _FAILED_FIELDS | {
    "verify_key": ",".join(sorted(_FAILED_FIELDS)),
    "verify_sign": "e18d307bd202fe0295672f03bff82c16",
    "verify_sign_sha2": "2851018ea0f8d68d24f5b8ef51d0890ddbb10530865bd2a719fdde5075d46440",
}


def encode(form: Mapping[str, str]) -> bytes:
    """Write a form as the gateway does."""
    return urlencode(form).encode()


def signed(
    fields: Mapping[str, str], *, keys: str | None = None, password: str = STORE_PASSWORD
) -> dict[str, str]:
    """Sign fields as the gateway would, by default all but those that carry the signature.

    Written from the protocol's description, apart from the code under test.
    """
    plain = {name: value for name, value in fields.items() if not name.startswith("verify_")}
    listed = sorted(plain) if keys is None else keys.split(",")
    signature = {}
    for name, algorithm in (("verify_sign", "md5"), ("verify_sign_sha2", "sha256")):
        digest = hashlib.new(algorithm, password.encode()).hexdigest()
        values = {key: plain[key] for key in listed} | {"store_passwd": digest}
        text = "&".join(f"{key}={value}" for key, value in sorted(values.items()))
        signature[name] = hashlib.new(algorithm, text.encode()).hexdigest()
    return plain | {"verify_key": ",".join(listed)} | signature
