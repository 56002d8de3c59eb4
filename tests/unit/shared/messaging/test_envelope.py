"""What travels through Redis is what Dramatiq reads, and says how much is in it."""

from __future__ import annotations

import dramatiq
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.messaging.envelope import (
    Incoming,
    Outgoing,
    decode_items,
    encode_batch,
    encode_receipt,
    items_in,
)

texts = st.text(st.characters(codec="utf-8"))
payloads = st.dictionaries(texts, texts | st.integers(-(2**53), 2**53) | st.booleans() | st.none())
outgoing = st.builds(
    lambda id_, payload, traceparent: (
        Outgoing(id_, "payments.high", "a.b.v1", orjson.dumps(payload).decode(), traceparent),
        Incoming(id_, "a.b.v1", payload, traceparent),
    ),
    st.integers(1, 2**62),
    payloads,
    st.none() | st.just("00-abc"),
)


@given(st.lists(outgoing, max_size=5))
def test_items_come_out_of_a_batch_as_they_went_in(
    items: list[tuple[Outgoing, Incoming]],
) -> None:
    _, body = encode_batch("payments.high", "webhook", [sent for sent, _ in items])

    batch = dramatiq.Message.decode(body).kwargs["batch"]

    assert batch["sender"] == "webhook"
    assert decode_items(batch) == [received for _, received in items]


def test_dramatiq_finds_the_actor_the_queue_and_the_redis_id_in_a_body() -> None:
    message_id, body = encode_receipt("webhook.receipts", [1, 2, 3])

    message = dramatiq.Message.decode(body)

    assert message.actor_name == message.queue_name == "webhook.receipts"
    assert message.message_id == message.options["redis_message_id"] == message_id
    assert message.kwargs == {"ids": [1, 2, 3]}


@pytest.mark.parametrize("count", [1, 2, 100])
def test_an_id_tells_how_many_messages_it_stands_for(count: int) -> None:
    item = Outgoing(1, "payments.high", "a.b.v1", "{}", None)

    batch_id, _ = encode_batch("payments.high", "webhook", [item] * count)
    receipt_id, _ = encode_receipt("webhook.receipts", list(range(count)))

    assert items_in(batch_id) == items_in(receipt_id) == count


@pytest.mark.parametrize("foreign", ["", "b2f1c0de", "b2f1.", "b2f1.x", "b2f1.²"])
def test_an_id_that_is_not_ours_stands_for_one_message(foreign: str) -> None:
    assert items_in(foreign) == 1


@pytest.mark.parametrize("batch", [{}, {"items": [{}]}, {"items": [1]}, {"items": None}], ids=repr)
def test_a_batch_of_another_make_is_told_by_an_error(batch: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError)):
        decode_items(batch)
