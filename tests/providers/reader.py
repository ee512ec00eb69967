"""What a reconciler sees of a source."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from gwctl.api.parse import Invalid, Resource
from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.providers.file import GRACE
from gwctl.providers.source import Batch, Source

SETTLE = GRACE * 3


class Reader:
    """What a reconciler sees: the state that all batches add up to."""

    def __init__(self, source: Source) -> None:
        self._batches = aiter(source.batches())
        self._pending: asyncio.Future[Batch] | None = None
        self.state: dict[Ref, Resource] = {}
        self.invalid: tuple[Invalid, ...] = ()
        self.seen: list[Batch] = []

    async def next(self, seconds: float = 5.0) -> Batch:
        if self._pending is None:
            self._pending = asyncio.ensure_future(anext(self._batches))
        batch = await asyncio.wait_for(asyncio.shield(self._pending), seconds)
        self._pending = None
        self.seen.append(batch)
        for name, resource in batch.changes.items():
            if resource is None:
                self.state.pop(name, None)
            else:
                self.state[name] = resource
        self.invalid = batch.invalid
        return batch

    async def settle(self) -> None:
        """Read until nothing has come for a while."""
        while True:
            try:
                await self.next(SETTLE)
            except TimeoutError:
                return

    async def until(self, holds: Callable[[], bool]) -> None:
        """Read until something holds."""
        while not holds():
            await self.next()

    def ports(self) -> dict[str, int]:
        return {name.name: item.spec.ports[0].port for name, item in self.state.items() if isinstance(item, Service)}

    async def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)
        if isinstance(self._batches, AsyncGenerator):
            await self._batches.aclose()
