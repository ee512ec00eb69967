"""The metrics: names, and series that go when their object goes."""

from gwctl import __version__
from gwctl.runtime.metrics import Metrics


def exposed(metrics: Metrics) -> dict[str, float]:
    """Read the metrics as Prometheus would: name with labels to value."""
    text, content_type = metrics.expose("")
    assert content_type.startswith("text/plain")
    lines = (line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines if name.startswith("gwctl_")}


def test_losses_of_mirrors_are_those_of_all_processes_of_haproxy() -> None:
    metrics = Metrics()
    for total in (0, 3, 5, 1, 1):
        metrics.set_mirror_losses(total)
    assert exposed(metrics)["gwctl_mirror_losses_total"] == 6


def test_counters() -> None:
    metrics = Metrics()
    metrics.reloads.labels(reason="first start").inc()
    metrics.plan_operations.labels(operation="SetRow", table="hosts").inc(3)
    metrics.dataplane_errors.labels(kind="Unavailable").inc()
    metrics.drift_repaired.labels(kind="SetRow").inc()
    metrics.readback_mismatches.inc()
    metrics.observe_request("GET", "/info", 200)
    metrics.apply_duration.observe(0.003)
    metrics.event_to_applied.observe(0.02)
    found = exposed(metrics)
    assert found['gwctl_reloads_total{reason="first start"}'] == 1
    assert found['gwctl_plan_operations_total{operation="SetRow",table="hosts"}'] == 3
    assert found['gwctl_dataplane_errors_total{kind="Unavailable"}'] == 1
    assert found['gwctl_drift_repaired_total{kind="SetRow"}'] == 1
    assert found["gwctl_readback_mismatches_total"] == 1
    assert found['gwctl_dataplane_requests_total{call="/info",method="GET",status="200"}'] == 1
    assert found['gwctl_apply_duration_seconds_bucket{le="0.005"}'] == 1
    assert found["gwctl_event_to_applied_seconds_count"] == 1
    assert found[f'gwctl_build_info{{version="{__version__}"}}'] == 1


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.readback_mismatches.inc()
    assert exposed(second)["gwctl_readback_mismatches_total"] == 0


def test_what_is_gone_is_no_longer_exposed() -> None:
    metrics = Metrics()
    metrics.set_service_slots({"default/a/80": "gwctl-http-00001", "default/a/80~tcp": "gwctl-tcp-00001"})
    metrics.set_problems(["Accepted", "Accepted", "Invalid"])
    metrics.set_resources(["HTTPRoute"])
    metrics.set_pool("http", 3, 8)
    found = exposed(metrics)
    assert found['gwctl_service_slot_info{service="default/a/80",slot="gwctl-http-00001"}'] == 1
    assert found['gwctl_service_slot_info{service="default/a/80",slot="gwctl-tcp-00001"}'] == 1
    assert found['gwctl_problems{condition="Accepted"}'] == 2
    assert found['gwctl_pool_slots{mode="http",state="free"}'] == 5
    metrics.set_service_slots({"default/a/80": "gwctl-http-00002"})
    metrics.set_problems(["Invalid"])
    metrics.set_resources([])
    found = exposed(metrics)
    slots = [name for name in found if name.startswith("gwctl_service_slot_info")]
    assert slots == ['gwctl_service_slot_info{service="default/a/80",slot="gwctl-http-00002"}']
    assert [name for name in found if name.startswith("gwctl_problems")] == ['gwctl_problems{condition="Invalid"}']
    assert not [name for name in found if name.startswith("gwctl_resources")]
