"""Slots: who gets which, and how many there are."""

from gwctl.haproxy.slot import allocate, size_pools
from gwctl.haproxy.table import service_mode

POOL = {"http": 4, "tcp": 1}
SLOTS = [f"gwctl-http-0000{number}" for number in range(1, 5)]


def test_a_service_keeps_its_slot_and_a_new_one_gets_the_first_that_is_free() -> None:
    assert allocate(["d/b/80", "d/a/80"], {"d/b/80": SLOTS[1]}, POOL) == {"d/b/80": SLOTS[1], "d/a/80": SLOTS[0]}


def test_a_slot_that_rests_is_taken_last() -> None:
    resting = {"d/x/80": SLOTS[0]}
    assert allocate(["d/a/80"], {}, POOL, resting) == {"d/a/80": SLOTS[1]}
    assert allocate(["d/a/80", "d/x/80"], {}, POOL, resting) == {"d/a/80": SLOTS[1], "d/x/80": SLOTS[0]}
    services = [f"d/{name}/80" for name in "abcd"]
    assert allocate(services, {}, POOL, resting)["d/d/80"] == SLOTS[0]


def test_a_pool_grows_before_a_slot_that_rests_is_given_to_another_service() -> None:
    held = {"d/a/80": SLOTS[0]}
    assert service_mode("d/a/80") == "http"
    rest = dict(zip(("d/x/80", "d/y/80", "d/z/80"), SLOTS[1:], strict=True))
    assert size_pools(SLOTS, ["d/a/80"], held, POOL, rest)["http"] == 4
    assert size_pools(SLOTS, ["d/a/80", "d/b/80"], held, POOL, rest)["http"] == 8
    # Who comes back finds its own.
    assert size_pools(SLOTS, ["d/a/80", "d/x/80"], held, POOL, rest)["http"] == 4
    assert size_pools(SLOTS, ["d/a/80", "d/b/80"], held, POOL, {"d/x/80": SLOTS[1], "d/y/80": SLOTS[2]})["http"] == 4
    # One that is held by now is no longer free for anybody.
    assert size_pools(SLOTS, ["d/a/80", "d/b/80"], held, POOL, {"d/x/80": SLOTS[0]})["http"] == 4
