"""Slots: empty backends of the configuration that Services claim at runtime.

Which Service holds which slot is read from HAProxy's own ``services`` table, so a restart of gwctl changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

from gwctl.graph.gatewayservice import SLOT_RANGES, Mode, slot_mode_of
from gwctl.haproxy.names import listener_slot_port, slot_mode, slot_name
from gwctl.haproxy.table import service_mode

NOTHING: Mapping[str, str] = MappingProxyType({})

MODES = ("http", "tcp")
"""The modes of backend slots; those of listener slots are `SLOT_RANGES`'."""


def size_pool(existing: int, in_use: int, leaving: int, initial: int) -> int:
    """Say how many slots of a mode there should be.

    The pool doubles when less than a quarter of it is free, or when a Service would have to move into a slot while
    another is still leaving it: requests of one would meet servers of the other.
    """
    size = max(existing, initial)
    while in_use * 4 > size * 3 or in_use + leaving > size:
        size *= 2
    return size


def size_pools(
    existing: Iterable[str],
    services: Collection[str],
    held: Mapping[str, str],
    initial: Mapping[str, int],
    resting: Mapping[str, str] = NOTHING,
) -> dict[str, int]:
    """Size the pool of each mode, for the slots that exist, the keys of the Services and the slots held till now.

    ``resting``: slots that Services have left a moment ago, by key; they count as taken where another Service is new.
    """
    slots = [slot_mode(name) for name in existing]
    needed = [service_mode(key) for key in services]
    new = {service_mode(key) for key in services if key not in held and key not in resting}
    left = {slot for key, slot in held.items() if key not in services}
    left |= {
        slot
        for key, slot in resting.items()
        if slot_mode(slot) in new and slot not in held.values() and key not in services
    }
    leaving = [slot_mode(slot) for slot in left]
    return {
        mode: size_pool(slots.count(mode), needed.count(mode), leaving.count(mode), initial[mode]) for mode in MODES
    }


def allocate(
    services: Iterable[str], held: Mapping[str, str], pools: Mapping[str, int], resting: Mapping[str, str] = NOTHING
) -> dict[str, str]:
    """Give every Service (by key) a slot: the one it holds, or had, where that is sound, else the first free one.

    ``held`` is the actual ``services`` table. A slot that another Service just leaves, or has left a moment ago, is
    taken last: by `size_pools` there is a free one but where rows that gwctl did not write hold slots twice.
    """
    wanted = sorted(services)
    given: dict[str, str] = {}
    taken: set[str] = set()
    for of in (held, resting):
        for key in wanted:
            slot = of.get(key)
            fits = slot is not None and slot not in taken and _is_in_pool(slot, service_mode(key), pools)
            if slot is not None and fits and key not in given:
                given[key] = slot
                taken.add(slot)
    leaving = {*held.values(), *resting.values()} - taken
    free = {mode: _free_slots(mode, size, taken, leaving) for mode, size in pools.items()}
    for key in wanted:
        if key not in given:
            given[key] = next(free[service_mode(key)])
    return given


def size_listener_pools(existing: Iterable[str], used: Iterable[int], initial: Mapping[Mode, int]) -> dict[Mode, int]:
    """Size the pool of listener slots of each mode, for the frontends that exist and the ports in use; 0 is no slots.

    The last slot in use counts as well as their number: another replica's pool may be larger.
    """
    there = [slot_mode_of(listener_slot_port(name) or 0) for name in existing]
    ports = list(used)
    sizes: dict[Mode, int] = {}
    for mode, wanted in initial.items():
        slots = SLOT_RANGES[mode]
        numbers = [port - slots.first + 1 for port in ports if port in slots]
        size = size_pool(there.count(mode), len(numbers), 0, wanted) if wanted else 0
        while size and max(numbers, default=0) > size:
            size *= 2
        sizes[mode] = min(size, slots.limit)
    return sizes


def _is_in_pool(slot: str, mode: str, pools: Mapping[str, int]) -> bool:
    return slot_mode(slot) == mode and 1 <= int(slot.rpartition("-")[2]) <= pools[mode]


def _free_slots(mode: str, size: int, taken: set[str], leaving: set[str]) -> Iterator[str]:
    names = [name for name in (slot_name(mode, number) for number in range(1, size + 1)) if name not in taken]
    yield from (name for name in names if name not in leaving)
    yield from (name for name in names if name in leaving)
