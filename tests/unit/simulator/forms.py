"""Forms that open a session."""

from __future__ import annotations

import itertools

STORE = {"store_id": "sluice_demo", "store_passwd": "sluice_demo_password"}
PASSWORD = STORE["store_passwd"]

_numbers = itertools.count(1)


def session_form(**changes: str) -> dict[str, str]:
    """Fill in a form that opens a session."""
    form = {
        **STORE,
        "total_amount": "1000.00",
        "currency": "BDT",
        "tran_id": f"INV-{next(_numbers):06d}",
        "product_category": "course",
        "success_url": "http://shop.example/success",
        "fail_url": "http://shop.example/fail",
        "cancel_url": "http://shop.example/cancel",
        "cus_name": "Ada",
        "cus_email": "ada@shop.example",
        "cus_add1": "Dhaka",
        "cus_city": "Dhaka",
        "cus_postcode": "1000",
        "cus_country": "Bangladesh",
        "cus_phone": "01700000000",
        "shipping_method": "NO",
        "product_name": "Course",
        "product_profile": "non-physical-goods",
    }
    return form | changes
