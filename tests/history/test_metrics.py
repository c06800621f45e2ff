"""The history's metrics, and the alerts and panels that use them."""

from pathlib import Path

from perceiverd.history.metrics import HistoryCollector, ServiceCounts
from perceiverd.history.recording import DaemonRecorder
from tests.support.monitoring import alerts, check_expressions, check_firing, check_shown, needs_promtool, panels

PROGRAM = "perceiverd_history_"


def test_dashboard_and_alerts_use_every_metric() -> None:
    """They use all that the history exports, and nothing else."""
    daemon = DaemonRecorder("house", "ipc:///x", 0.05)
    families = {family.name: family for family in HistoryCollector(ServiceCounts(), [daemon]).collect()}
    shown = [target["expr"] for panel in panels(PROGRAM) for target in panel["targets"]]
    check_expressions(families, [*shown, *alerts(PROGRAM).values()], PROGRAM)
    check_shown(families)


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Each alert fires for the history with that fault, and not for the one that is well."""
    bad, well = 'instance="bad"', 'instance="well"'
    series = {
        f'up{{job="perceiverd-history", {bad}}}': "0x40",
        f'up{{job="perceiverd-history", {well}}}': "1x40",
        f"{PROGRAM}turn_age_seconds{{{bad}}}": "0+60x40",
        f"{PROGRAM}turn_age_seconds{{{well}}}": "0.1x40",
        f"{PROGRAM}failing{{{bad}}}": "0x20 1x20",
        f"{PROGRAM}failing{{{well}}}": "0x20 1 0x20",
        f"{PROGRAM}disk_free_bytes{{{bad}}}": "2e9-5e7x40",
        f"{PROGRAM}disk_free_bytes{{{well}}}": "2e9x40",
        f"{PROGRAM}rows_waiting{{{bad}}}": "0+500x40",
        f"{PROGRAM}rows_waiting{{{well}}}": "20x40",
        f'{PROGRAM}messages_missed_total{{{well}, machine="house"}}': "7x40",
        f"{PROGRAM}events_lost_total{{{bad}}}": "0+1x40",
        f"{PROGRAM}events_lost_total{{{well}}}": "4x40",
        f"{PROGRAM}rows_refused_total{{{bad}}}": "0x40",
        f"{PROGRAM}rows_refused_total{{{well}}}": "1x40",
        f'{PROGRAM}daemon_up{{machine="house"}}': "1x20 0x20",
        f'{PROGRAM}daemon_up{{machine="barn"}}': "1x20 0x2 1x18",
    }
    about = {
        **dict.fromkeys(
            (
                "PerceiverdHistoryDown",
                "PerceiverdHistoryStuck",
                "PerceiverdHistoryNotStoring",
                "PerceiverdHistoryDiskFull",
                "PerceiverdHistoryBehind",
                "PerceiverdHistoryLosesEvents",
            ),
            bad,
        ),
        "PerceiverdHistoryHearsNothing": 'machine="house"',
    }
    assert set(about) == set(alerts(PROGRAM))
    check_firing(tmp_path, series, about)
    missing = {f'{PROGRAM}messages_missed_total{{{bad}, machine="house"}}': "0+3x40"}
    check_firing(tmp_path, missing, {"PerceiverdHistoryBehind": bad})
