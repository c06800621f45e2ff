"""Corrections through the API, on a real server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.pages import PageProcess, served
from tests.support.running_daemon import RunningDaemon

TIME = {"start": "2026-01-31T12:00:00Z", "end": "2026-01-31T12:00:02Z"}
MISSED = {"machine": "house", "stream": "door", "label": "Dog", "verdict": "missed", **TIME}


def test_right_wrong_and_missed(page: PageProcess, stored: Path) -> None:
    """A verdict is stored with the clip, shown with the event, replaced by another one, and removed."""
    browser = page.browser()
    browser.fetch_session()
    (last, *_, first) = browser.get("/api/1/events").json["events"]
    answer = browser.post("/api/1/corrections", {"event": last["id"], "verdict": "wrong"})
    assert (answer.status, answer.json["sound"], answer.json["why"]) == (201, True, None)
    assert browser.get(f"/api/1/events/{last['id']}").json["verdict"] == "wrong"
    without = browser.post("/api/1/corrections", {"event": first["id"], "verdict": "wrong"})
    assert (without.json["sound"], "sound" in without.json["why"]) == (False, True)
    assert browser.post("/api/1/corrections", {"event": first["id"], "verdict": "right"}).status == 201
    assert browser.post("/api/1/corrections", MISSED).status == 201
    found = browser.get("/api/1/corrections").json["corrections"]
    assert [(each["verdict"], each["name"]) for each in found] == [
        ("missed", "Dog"),
        ("right", "Dog"),
        ("wrong", "Speech"),
    ]
    lines = (stored / "corrections" / "corrections.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["wrong", "right", "missed"]
    for each in found:
        assert browser.delete(f"/api/1/corrections/{each['id']}").status == 204
    assert browser.delete(f"/api/1/corrections/{found[0]['id']}").status == 404
    assert browser.get(f"/api/1/events/{last['id']}").json["verdict"] is None


def test_an_example_may_have_a_name_of_its_own(page: PageProcess) -> None:
    """A taught sound is not one of AudioSet's; its identifier is made of its name."""
    browser = page.browser()
    browser.fetch_session()
    example = {**MISSED, "verdict": "example", "label": "Door bell at home"}
    number = browser.post("/api/1/corrections", example).json["id"]
    (found,) = browser.get("/api/1/corrections").json["corrections"]
    assert (found["mid"], found["name"]) == ("user/door-bell-at-home", "Door bell at home")
    assert browser.delete(f"/api/1/corrections/{number}").status == 204


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"verdict": "right"}, 400, "event: is missing; give the number of the event that is right or wrong"),
        ({"verdict": "missed", "event": 1}, 400, "verdict: an event is right or wrong"),
        ({"verdict": "right", "event": 999}, 404, "there is no event with this number"),
        ({"verdict": "right", "event": 1, "label": "Dog"}, 400, "event: give only the event and the verdict"),
        ({**MISSED, "label": "Dogg"}, 400, "label: unknown label 'Dogg'; did you mean 'Dog'?"),
        ({**MISSED, "stream": "../door"}, 404, "there is no such stream"),
        ({**MISSED, "end": "2026-02-01T12:00:00Z"}, 400, "end: must be after start, at most 10 minutes"),
        ({**MISSED, "start": "2200-01-01T00:00:00Z", "end": "2200-01-01T00:00:01Z"}, 400, "start: is in the future"),
        ({**MISSED, "clip": "/etc/passwd"}, 400, "object contains unknown field clip"),
        ({**MISSED, "label": "user/../x\u0000"}, 400, "label: unknown label"),
    ],
)
def test_wrong_corrections(page: PageProcess, body: object, status: int, sentence: str) -> None:
    """They are one sentence, and nothing is stored; no field names a path or a program."""
    browser = page.browser()
    browser.fetch_session()
    answer = browser.post("/api/1/corrections", body)
    assert (answer.status, answer.error[: len(sentence)]) == (status, sentence)
    assert browser.get("/api/1/corrections").json["corrections"] == []


def test_a_page_without_corrections(tmp_path: Path, daemon: RunningDaemon) -> None:
    """Without a folder `about` says so, and requests are refused with what to set."""
    with served(tmp_path, "--endpoint", daemon.endpoint) as made:
        browser = made.browser()
        browser.fetch_session()
        assert browser.get("/api/1/about").json["corrections"] is False
        answer = browser.post("/api/1/corrections", MISSED)
        assert (answer.status, "set corrections.directory" in answer.error) == (404, True)
