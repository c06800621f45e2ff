"""The page's metrics, and the alerts and panels that use them."""

from pathlib import Path

from perceiverd.web.guard import RefusedRequests
from perceiverd.web.metrics import WebCollector
from perceiverd.web.service import api_of
from perceiverd.web.settings import WebConfig
from tests.support.monitoring import alerts, check_expressions, check_firing, check_shown, needs_promtool, panels

PROGRAM = "perceiverd_web_"


def test_dashboard_and_alerts_use_every_metric() -> None:
    """They use all that the page exports, and nothing else."""
    families = {family.name: family for family in WebCollector(api_of(WebConfig()), RefusedRequests()).collect()}
    shown = [target["expr"] for panel in panels(PROGRAM) for target in panel["targets"]]
    check_expressions(families, [*shown, *alerts(PROGRAM).values()], PROGRAM)
    check_shown(families)


@needs_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    """Each alert fires for the page with that fault, and not for the one that is well."""
    bad, well = 'instance="bad"', 'instance="well"'
    series = {
        f'up{{job="perceiverd-web", {bad}}}': "0x40",
        f'up{{job="perceiverd-web", {well}}}': "1x40",
        f"{PROGRAM}turn_age_seconds{{{bad}}}": "0+60x40",
        f"{PROGRAM}turn_age_seconds{{{well}}}": "0.1x40",
        f"{PROGRAM}questions_refused_total{{{bad}}}": "0+1x40",
        f"{PROGRAM}followers_refused_total{{{bad}}}": "0x40",
        f"{PROGRAM}connections_refused_total{{{bad}}}": "0x40",
        f"{PROGRAM}questions_refused_total{{{well}}}": "2x40",
        f"{PROGRAM}followers_refused_total{{{well}}}": "0x40",
        f"{PROGRAM}connections_refused_total{{{well}}}": "5x40",
        f"{PROGRAM}passwords_wrong_total{{{bad}}}": "0+2x40",
        f"{PROGRAM}logins_limited_total{{{bad}}}": "0+3x40",
        f"{PROGRAM}passwords_wrong_total{{{well}}}": "0+1x40",
        f"{PROGRAM}logins_limited_total{{{well}}}": "9x40",
    }
    names = ("Down", "Stuck", "Refuses", "PasswordsGuessed")
    about = {f"PerceiverdWeb{name}": bad for name in names}
    assert set(about) == set(alerts(PROGRAM))
    check_firing(tmp_path, series, about)
