"""`perceiverd web` as a process, with real daemons, sockets and a real history."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from perceiverd.cli.app import app
from tests.support import messages
from tests.support.pages import DEADLINE_S, Browser, Follower, PageProcess, served, until
from tests.support.running_daemon import RunningDaemon


def test_what_the_server_is(page: PageProcess) -> None:
    """`about` has the machines and what the page can do; `streams` the state of each stream."""
    about = page.browser().get("/api/1/about").json
    assert (about["history"], about["media"], about["corrections"]) == (True, True, True)
    (machine,) = about["machines"]
    assert (machine["name"], machine["silent"], machine["model"]) == ("house", False, "tiny")
    streams = page.browser().get("/api/1/streams").json["streams"]
    assert [(each["machine"], each["stream"], each["state"]) for each in streams] == [
        ("house", "door", "up"),
        ("house", "yard", "up"),
    ]
    until(lambda: page.browser().get("/api/1/streams").json["streams"][0]["labels"])


def test_events_of_the_history(page: PageProcess) -> None:
    """Pages follow one another, filters hold, and an event has its scores and its neighbours."""
    browser = page.browser()
    first = browser.get("/api/1/events?limit=2").json
    assert [each["name"] for each in first["events"]] == ["Speech", "Cat"]
    second = browser.get(f"/api/1/events?limit=2&cursor={first['next']}").json
    assert ([each["name"] for each in second["events"]], second["next"]) == (["Dog"], None)
    animals = browser.get("/api/1/events?label=Animal&stream=house/door").json["events"]
    assert [each["name"] for each in animals] == ["Cat", "Dog"]
    found = browser.get(f"/api/1/events/{animals[0]['id']}").json
    assert (found["previous"], found["next"]) == (animals[1]["id"], first["events"][0]["id"])
    assert (found["details"]["began"], found["details"]["ended"]) == ("confirmed", "faded")
    assert found["trace"] and set(found["labels"]) >= {mid for each in found["trace"] for mid in each["scores"]}
    assert browser.get("/api/1/events/999").status == 404


def test_a_day_in_a_time_zone(page: PageProcess) -> None:
    """The day begins at the zone's midnight, and has the events and the states of that day."""
    day = page.browser().get("/api/1/day?date=2026-01-31&zone=Asia/Kathmandu").json
    assert (day["start"], day["windows_start"]) == ("2026-01-30T18:15:00Z", "2026-01-30T18:00:00Z")
    assert len(day["time_line"]["ids"]) == 3
    assert {each["kind"] for each in day["spans"]} >= {"up"}
    assert page.browser().get("/api/1/day?date=2026-01-31&zone=../../etc/passwd").status == 400


def test_statistics_heat_and_labels(page: PageProcess) -> None:
    """Counts, scores by minute with null where nothing was listening, and labels by a part of their name."""
    browser = page.browser()
    counts = browser.get("/api/1/statistics?zone=Europe/Berlin").json
    assert (counts["events"], counts["by_day"], counts["by_hour"][13]) == (3, {"2026-01-31": 3}, 3)
    span = "start=2026-01-31T11:59:00Z&end=2026-01-31T12:02:00Z"
    heat = browser.get(f"/api/1/streams/house/door/heatmap?{span}").json
    assert len(heat["minutes"]) == 3
    assert heat["rows"] == [] or heat["rows"][0]["largest"][0] is None
    assert browser.get("/api/1/labels?q=dog").json["labels"][0]["name"] == "Dog"
    assert browser.get("/api/1/streams/house/nothing/heatmap?" + span).status == 404
    long = "start=2026-01-01T00:00:00Z&end=2026-01-09T00:00:00Z"
    assert browser.get("/api/1/streams/house/door/heatmap?" + long).error == "end: must be after start, at most a week"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("limt=2", "limt: unknown parameter; did you mean 'limit'?"),
        ("limit=501", "limit: expected int <= 500"),
        ("limit=2&limit=3", "limit: is given twice; give it once"),
        ("label=Dogg", "label: unknown label 'Dogg'; did you mean 'Dog'?"),
        ("after=yesterday", "after: expected a time such as 2026-11-26T12:00:00Z"),
        ("after=0001-01-01T00:00:00Z", "a time must be between the years 1970 and 2999"),
        ("cursor=1-99999999999999999999999", "cursor: is not one of ours; use `next` of the page before"),
        ("least_peak=nan", "least_peak: expected float >= 0.0"),
    ],
)
def test_a_wrong_question_is_one_sentence(page: PageProcess, query: str, sentence: str) -> None:
    """It names the parameter and what to do."""
    answer = page.browser().get(f"/api/1/events?{query}")
    assert (answer.status, answer.error) == (400, sentence)


def test_live(page: PageProcess, daemon: RunningDaemon) -> None:
    """A browser gets all streams at first, then changes, then events as they begin and end."""
    follower = Follower(page.port)
    assert follower.response.headers["content-type"].startswith("text/event-stream")
    assert len(follower.next("streams")["streams"]) == 2
    assert follower.next("stream")["machine"] == "house"
    daemon.send(messages.event("begin", 7, "yard"))
    begun = follower.next("event")
    assert (begun["machine"], begun["stream"], begun["key"], begun["state"]) == ("house", "yard", "7", "open")
    until(lambda: any(each["open_events"] for each in page.browser().get("/api/1/streams").json["streams"]))
    daemon.send(messages.event("end", 7, "yard"))
    assert follower.next("event")["state"] == "ended"
    follower.close()


def test_reasons_are_subscribed_to_only_while_somebody_looks(page: PageProcess, daemon: RunningDaemon) -> None:
    """The daemon publishes reasons only while there is a subscriber, since they cost it time."""
    assert not daemon.explained
    follower = Follower(page.port, "/api/1/live?explain=house/door")
    until(lambda: daemon.explained)
    follower.close()
    until(lambda: not daemon.explained)
    assert page.browser().get("/api/1/live?explain=house/other").status == 404


def test_a_silent_machine_is_marked_and_stalls_nobody(tmp_path: Path) -> None:
    """Of three machines one hangs and the clock of one is wrong: both are marked, and the third goes on."""
    with RunningDaemon(("a",)) as good, RunningDaemon(("b",)) as hung, RunningDaemon(("c",), 90) as early:
        named = {"good": good, "hung": hung, "early": early}
        options = [word for name, each in named.items() for word in ("--endpoint", f"{name}={each.endpoint}")]
        with served(tmp_path, *options, "--history", str(tmp_path)) as page:
            browser = page.browser()
            until(lambda: len(browser.get("/api/1/streams").json["streams"]) == 3)
            hung.silent = True

            def machines() -> dict[str, Any]:
                return {each["name"]: each for each in browser.get("/api/1/about").json["machines"]}

            until(lambda: machines()["hung"]["silent"] and machines()["early"]["clock_off"])
            assert not machines()["good"]["silent"] and not machines()["good"]["clock_off"]
            assert 85 < machines()["early"]["clock_offset_s"] < 91
            streams = {each["machine"]: each for each in browser.get("/api/1/streams").json["streams"]}
            assert (streams["hung"]["stale"], streams["good"]["stale"]) == (True, False)
            assert "silent" in streams["hung"]["problem"]
            before = machines()["good"]["seen"]
            until(lambda: machines()["good"]["seen"] > before)
            answer = browser.get("/api/1/events")
            assert (answer.status, "there is no history" in answer.error) == (503, True)


def test_a_prefix_behind_a_proxy(tmp_path: Path, daemon: RunningDaemon) -> None:
    """The page answers below its prefix, whether or not the proxy removes it, and cookies are for the prefix only."""
    config = tmp_path / "web.toml"
    config.write_text(
        '[server]\nlisten = "127.0.0.1:*"\nprefix = "/ears"\nhosts = ["cams.example.org"]\nproxies = ["127.0.0.0/8"]\n'
        f'[daemons.house]\nendpoint = "{daemon.endpoint}"\n'
    )
    with served(tmp_path, "--config", str(config)) as page:
        browser = page.browser("/ears", host="cams.example.org", x_forwarded_proto="https")
        answer = browser.get("/api/1/session")
        assert re.fullmatch(
            r"perceiverd_session=[\w-]{43}; Path=/ears; HttpOnly; SameSite=Strict; Secure", answer.headers["set-cookie"]
        )
        behind_two = page.browser("/ears", host="cams.example.org", x_forwarded_proto="https, http")
        assert behind_two.get("/api/1/session").headers["set-cookie"].endswith("; Secure")
        assert page.browser().get("/api/1/about").status == 200
        redirect = page.browser().get("/ears")
        assert (redirect.status, redirect.headers["location"]) == (308, "/ears/")


def test_a_unix_socket(tmp_path: Path, daemon: RunningDaemon) -> None:
    """It is for the owner and the group, is replaced after a kill, and is gone after the end."""
    path = tmp_path / "page.sock"
    options = ("--listen", f"unix:{path}", "--endpoint", daemon.endpoint)
    config = tmp_path / "web.toml"
    config.write_text("")
    with served(tmp_path, *options, "--config", str(config)):
        assert path.stat().st_mode & 0o777 == 0o660
        done = CliRunner().invoke(app, ["web", *options])
        assert (done.exit_code, "another program serves there" in done.stderr) == (78, True)
    assert path.is_socket()
    with served(tmp_path, *options, "--config", str(config)) as page:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /api/1/about HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(DEADLINE_S) == 0
    assert not path.exists()


def test_it_stops_while_browsers_follow(tmp_path: Path, daemon: RunningDaemon) -> None:
    """SIGTERM ends the live streams and the process, with status 0."""
    with served(tmp_path, "--endpoint", daemon.endpoint) as page:
        follower = Follower(page.port)
        follower.next("streams")
        page.process.terminate()
        assert page.process.wait(DEADLINE_S) == 0
        follower.close()


def test_metrics_are_served(tmp_path: Path, daemon: RunningDaemon) -> None:
    """Daemons, browsers, refusals by reason, and a probe."""
    config = tmp_path / "web.toml"
    config.write_text(
        '[server]\nlisten = "127.0.0.1:*"\n[metrics]\nendpoint = "127.0.0.1:*"\n'
        f'[daemons.house]\nendpoint = "{daemon.endpoint}"\n'
    )
    with served(tmp_path, "--config", str(config)) as page:
        until(lambda: page.browser().get("/api/1/streams").json["streams"])
        follower = Follower(page.port)
        follower.next("streams")
        assert page.browser(host="evil.example").get("/").status == 421
        port = int(page.log.read_text().partition("metrics-listening host=127.0.0.1 port=")[2].split()[0])
        metrics = Browser(port)
        text = metrics.get("/metrics").body.decode()
        assert 'perceiverd_web_daemon_up{machine="house"} 1.0' in text
        assert 'perceiverd_web_requests_refused_total{reason="host"} 1.0' in text
        assert "perceiverd_web_followers 1.0" in text
        assert metrics.get("/healthz").body == b"ok\n"
        follower.close()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--listen", "0.0.0.0:8480"],
            "every machine on the network could see the page at 0.0.0.0:8480; ",
        ),
        (["--listen", "8480"], "--listen: listen must be HOST:PORT or unix:PATH, not '8480'"),
        (["--password-file", "/nowhere/x"], "/nowhere/x: cannot read the password: No such file or directory"),
        (["--endpoint", "tcp://x"], "--endpoint: endpoint must be ipc://PATH or tcp://HOST:PORT, not 'tcp://x'"),
    ],
)
def test_wrong_options_are_one_line(words: list[str], sentence: str) -> None:
    """With the status of a wrong configuration, after which systemd does not restart the service."""
    done = CliRunner().invoke(app, ["web", *words])
    assert done.exit_code == 78
    assert done.stderr.startswith(f"perceiverd: {sentence}") and done.stderr.count("\n") == 1
