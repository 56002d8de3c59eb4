"""Customers who buy at a steady rate, through HTTP, and do not give up when nobody answers."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
import orjson

from tests.support.polling import eventually_blocking
from tests.support.supervised_stack import Span

#: Longer than the services' own time-outs.
REQUEST_SECONDS: Final = 25.0

#: Pause before a request that was not answered is sent again.
REPEAT_SECONDS: Final = 0.2

#: Purchases that `buy` carries out side by side.
TOGETHER_MAX: Final = 10

#: In whole taka: each priority has its share.
PRICES: Final = (500, 500, 1_150, 1_500, 2_500, 12_000)

NOTICE_HEADERS: Final = {"Content-Type": "application/x-www-form-urlencoded"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of purchase. `poisha` makes the amount one of the simulator's magic amounts."""

    name: str
    poisha: int
    #: How many copies of the notice we post ourselves, at once; the simulator then sends none.
    copies: int = 0
    is_paid: bool = True


PLAIN: Final = Kind("plain", 0)
POSTED: Final = Kind("notice posted by us", 5, copies=1)
POSTED_FIVE_TIMES: Final = Kind("notice posted by us five times at once", 5, copies=5)
SILENT: Final = Kind("notice never sent", 5)
REPEATED: Final = Kind("notice sent five times", 6)
FORGED: Final = Kind("only notice badly signed", 7)
ERRORS: Final = Kind("three validations answer 500", 9)
UNANSWERED: Final = Kind("two validations are not answered", 10)
SLOW: Final = Kind("every validation takes 2 s", 11)
REORDERED: Final = Kind("notices in the wrong order", 12)
PENDING: Final = Kind("two validations say pending", 16)
NONSENSE: Final = Kind("the first validation answers HTML", 17)
DROPPED: Final = Kind("two validations drop the connection", 18)
DECLINED: Final = Kind("declined", 1, is_paid=False)
CANCELLED: Final = Kind("cancelled", 2, is_paid=False)

#: Everything that recovers by itself as soon as everybody is there again.
USUAL: Final = (PLAIN, PLAIN, PLAIN, POSTED, POSTED, REPEATED, DECLINED)


@dataclass(slots=True, eq=False)
class Order:
    """What one customer wants, and what they were told of it."""

    number: int
    kind: Kind
    amount: int
    customer_id: str
    product_id: str
    began_at: float
    payment_id: str = ""
    reference: str = ""
    #: The signed notice, when it is ours to post.
    notice: bytes = b""
    event_key: str = ""
    is_acknowledged: bool = False
    ended_at: float | None = None
    #: What it waits for, while it does.
    step: str = "creation"


@dataclass(frozen=True, slots=True)
class Reply:
    """How one request ended; no status when nobody answered."""

    step: str
    began_at: float
    ended_at: float
    status: int | None
    retry_after: str | None
    body: bytes = field(repr=False)

    @property
    def data(self) -> Any:
        """Return what the envelope carries."""
        return orjson.loads(self.body)["data"]


class Traffic:
    """Runs on a thread of its own until `finish`.

    Args:
        url: The one address.
        api_key: A key that may write.
        seed: Decides amounts and kinds.
        per_second: Purchases begun a second.
        kinds: What to choose from.
        count: Purchases begun at all; without it they go on until `finish`.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        seed: int,
        per_second: float = 20.0,
        kinds: Sequence[Kind] = USUAL,
        count: int | None = None,
    ) -> None:
        self.orders: list[Order] = []
        self.replies: list[Reply] = []
        self._url = url
        self._key = api_key
        self._name = f"seed{seed}"
        self._random = random.Random(seed)
        self._per_second = per_second
        self._kinds = kinds
        self._count = count
        self._loop = asyncio.new_event_loop()
        self._client: aiohttp.ClientSession | None = None
        self._closing = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self._is_open = threading.Event()
        self._thread = threading.Thread(target=self._run_thread, name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_open.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(give_up=True)
        self._thread.join(10)

    @property
    def finished(self) -> int:
        """Count the purchases that were carried to their end."""
        return sum(order.ended_at is not None for order in self.orders)

    def wait_for_more(self, count: int, *, timeout_seconds: float = 40.0) -> None:
        """Wait until so many more purchases have ended than now."""
        wanted = self.finished + count
        try:
            eventually_blocking(
                lambda: self._error is not None or self.finished >= wanted,
                timeout_seconds=timeout_seconds,
            )
        except AssertionError as error:
            raise AssertionError(f"traffic does not flow: {self._unanswered()}") from error
        assert self._error is None, self._error

    def buy(
        self, count: int, kind: Kind = SILENT, *, customer_id: str | None = None
    ) -> list[Order]:
        """Carry out purchases as fast as is polite, and keep their notices to be posted.

        Args:
            count: How many.
            kind: Of which kind.
            customer_id: One customer who buys the same product each time, instead of one each.
        """
        places = asyncio.Semaphore(TOGETHER_MAX)

        async def buy_one(order: Order) -> None:
            async with places:
                await self._buy(order)

        async def buy_all() -> list[Order]:
            orders = [self._new_order(kind) for _ in range(count)]
            for order in orders if customer_id is not None else ():
                order.customer_id, order.product_id = str(customer_id), "course-0"
            await asyncio.gather(*(buy_one(order) for order in orders))
            return orders

        return self.run(buy_all())

    def post(self, body: bytes) -> Reply:
        """Post a notice once."""
        return self.run(self.send_notice(body))

    def control(self, path: str, body: Mapping[str, Any]) -> Reply:
        """Use the simulator's control API once."""
        return self.run(self._send("control", f"/simulator/sslcommerz/{path}", dict(body)))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the traffic's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(90)

    def finish(self, deadline: float) -> list[Order]:
        """Begin no more purchases and wait until those that were begun have ended.

        Args:
            deadline: On the monotonic clock.
        """
        if self._count is None:
            self._end(give_up=False)
        eventually_blocking(
            lambda: self._error is not None or self._is_idle() or time.monotonic() > deadline,
            timeout_seconds=max(0.1, deadline - time.monotonic()) + 1,
        )
        assert self._error is None, self._error
        assert self._is_idle(), f"not answered in time: {self._unanswered()}"
        return list(self.orders)

    def replies_in(self, span: Span) -> list[Reply]:
        """Return the replies to what was asked and answered inside a time."""
        return [
            reply
            for reply in list(self.replies)
            if span.began_at <= reply.began_at and reply.ended_at <= span.ended_at
        ]

    async def send_notice(self, body: bytes, *, url: str | None = None) -> Reply:
        """Post a notice once, to the one address or straight to a process."""
        return await self._send("notice", f"{url or self._url}/webhooks/sslcommerz", body)

    def _is_idle(self) -> bool:
        is_begun = self._closing.is_set() or self._has_enough()
        return is_begun and all(order.ended_at is not None for order in list(self.orders))

    def _has_enough(self) -> bool:
        return self._count is not None and len(self.orders) >= self._count

    def _unanswered(self) -> str:
        waiting = [order for order in list(self.orders) if order.ended_at is None]
        last = [(r.step, r.status) for r in self.replies[-3:]]
        named = [f"{order.number} ({order.kind.name}) in {order.step}" for order in waiting[:5]]
        return f"{len(waiting)} purchases: {'; '.join(named)}; last replies: {last}"

    def _end(self, *, give_up: bool) -> None:
        def end() -> None:
            self._closing.set()
            if give_up and self._main is not None:
                self._main.cancel()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(end)

    def _run_thread(self) -> None:
        try:
            self._loop.run_until_complete(self._run())
        except asyncio.CancelledError:
            pass  # `__exit__` is how this ends.
        except BaseException as error:  # noqa: BLE001 - raised again where the test waits
            self._error = error
        finally:
            self._loop.close()

    async def _run(self) -> None:
        self._main = asyncio.current_task()
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as self._client,
            asyncio.TaskGroup() as purchases,
        ):
            self._is_open.set()
            loop = asyncio.get_running_loop()
            next_at = loop.time()
            while not self._closing.is_set() and not self._has_enough():
                purchases.create_task(self._buy(self._new_order(self._random.choice(self._kinds))))
                next_at += 1 / self._per_second
                await _wait(self._closing, next_at - loop.time())
            await asyncio.Event().wait()  # Until `__exit__`, for `buy` and `post`.

    def _new_order(self, kind: Kind) -> Order:
        number = len(self.orders)
        order = Order(
            number=number,
            kind=kind,
            amount=self._random.choice(PRICES) * 100 + kind.poisha,
            customer_id=f"{self._name}-customer-{number}",
            product_id=f"course-{number % 7}",
            began_at=time.monotonic(),
        )
        self.orders.append(order)
        return order

    async def _buy(self, order: Order) -> None:
        created = await self._repeat(lambda: self._create(order), accepted={201}, repeated={409})
        order.payment_id = created.data["id"]
        order.reference = created.data["gatewayReference"]
        order.step = "payment"
        # Refused with 409 when an earlier try, whose answer was lost, has paid.
        paid = await self._repeat(
            lambda: self._send("pay", "/simulator/sslcommerz/pay", {"reference": order.reference}),
            accepted={200, 409},
        )
        if paid.status == 200 and order.kind.is_paid:
            fields = paid.data["callback"]["fields"]
            order.notice = urlencode(fields).encode()
            order.event_key = f"{order.reference}:{fields['status']}:{fields['val_id']}"
        if order.notice:
            order.step = "notice"
            copies = [self.acknowledge(order) for _ in range(order.kind.copies)]
            await asyncio.gather(*copies)
        order.step = "nothing"
        order.ended_at = time.monotonic()

    async def acknowledge(self, order: Order) -> None:
        """Post an order's notice as a gateway would: until it is acknowledged."""
        await self._repeat(lambda: self.send_notice(order.notice), accepted={200})
        order.is_acknowledged = True

    async def _create(self, order: Order) -> Reply:
        body = {
            "gateway": "sslcommerz",
            "amount": order.amount,
            "currency": "BDT",
            "customer": {"id": order.customer_id},
            "product": {"id": order.product_id},
            "returnUrl": "https://shop.example/paid",
        }
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Idempotency-Key": f"{self._name}-{order.number}",
        }
        return await self._send("create", "/api/payments", body, headers)

    async def _repeat(
        self,
        send: Callable[[], Coroutine[Any, Any, Reply]],
        *,
        accepted: set[int],
        repeated: frozenset[int] | set[int] = frozenset(),
    ) -> Reply:
        """Send until it is answered; what our own fault would be is not repeated."""
        while True:
            reply = await send()
            if reply.status in accepted:
                return reply
            is_outage = reply.status is None or reply.status >= 500 or reply.status == 429
            assert is_outage or reply.status in repeated, f"{reply} {reply.body.decode()}"
            await asyncio.sleep(REPEAT_SECONDS)

    async def _send(
        self,
        step: str,
        path: str,
        body: bytes | dict[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        assert self._client is not None
        began_at = time.monotonic()
        url = path if path.startswith("http") else f"{self._url}{path}"
        kind: Mapping[str, str] = {"Content-Type": "application/json"}
        if isinstance(body, bytes):
            content, kind = body, NOTICE_HEADERS
        else:
            content = orjson.dumps(body)
        status, retry_after, answer = None, None, b""
        try:
            async with self._client.post(
                url, data=content, headers={**kind, **(headers or {})}
            ) as response:
                answer = await response.read()
                status, retry_after = response.status, response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = type(error).__name__.encode()
        reply = Reply(step, began_at, time.monotonic(), status, retry_after, answer)
        self.replies.append(reply)
        return reply


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass  # Which is the usual case: nothing has happened.
