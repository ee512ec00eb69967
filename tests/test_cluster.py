"""What the test cluster decides by itself, without a cluster."""

from typing import Any

from tests.cluster.loadbalancer import POOL, assign


def service(name: str, *, given: str = "", wanted: str = "", kind: str = "LoadBalancer") -> dict[str, Any]:
    ingress = [{"ip": given}] if given else []
    return {
        "metadata": {"namespace": "default", "name": name},
        "spec": {"type": kind, "loadBalancerIP": wanted},
        "status": {"loadBalancer": {"ingress": ingress}},
    }


def test_a_service_gets_an_address_that_no_other_has() -> None:
    services = [service("old", given=POOL[0]), service("new"), service("inner", kind="ClusterIP")]
    assert assign(services) == {("default", "new"): POOL[1]}


def test_an_address_that_is_asked_for_is_given_if_it_is_free() -> None:
    services = [service("any"), service("fussy", wanted=POOL[0]), service("late", wanted=POOL[0])]
    assert assign(services) == {("default", "any"): POOL[1], ("default", "fussy"): POOL[0]}


def test_an_address_outside_the_pool_is_never_given() -> None:
    assert assign([service("lost", wanted="10.251.0.1")]) == {}


def test_an_address_changes_with_what_is_asked_for() -> None:
    assert assign([service("a", given=POOL[0], wanted=POOL[7])]) == {("default", "a"): POOL[7]}
    assert assign([service("a", given=POOL[0], wanted="10.251.0.1")]) == {("default", "a"): None}
