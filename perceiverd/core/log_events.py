"""Every log event and its meaning. Programs filter logs by these names, so a settled name does not change.

`docs/reference/log-events.md` is generated from this table and from the calls of `logs.log_event`.
"""

from __future__ import annotations

from collections.abc import Mapping

EVENTS: Mapping[str, str] = {
    # core
    "http-server-died": "The thread that serves metrics and probes has died. The program continues without it.",
    "notify-failed": "systemd's notification socket refused a message. Logged once until one gets through again.",
    "page-failed": "A page for metrics or probes has failed.",
    # daemon
    "config-reloaded": "The configuration was read again. The lists name streams.",
    "daemon-ready": "The start is over: the first window was published, or none is to be expected soon.",
    "daemon-started": "The model is loaded, and the sources start.",
    "daemon-stopping": "The daemon ends. `signal` asked for it; `-` if all streams have ended.",
    "holes-filled": "Audio or video was missing in a file, or in a stream since the last line, and was filled.",
    "machine-suspended": "The machine was suspended. Every stream has a gap, and its open events end.",
    "media-recovered": "Frozen video moves again, or dead audio is alive again.",
    "media-stalled": "Video is frozen, or audio is dead, and counts as missing. `what` says which.",
    "metrics-listening": "The daemon serves metrics and probes at this address.",
    "model-loaded": "The model is loaded and has tagged its first window.",
    "publisher-listening": "The daemon publishes at this endpoint. `boot_id` is new with each start.",
    "reload-refused": "The new configuration has an error. The old one stays in force as a whole.",
    "restart-needed": "These options have changed and take effect at the next start.",
    "sources-overlap": "Two sources of a stream give the same modality. The active one is used, the other is ignored.",
    "streams-ended": "All streams have ended, and so does the daemon.",
    "windows-dropped": "The network is too slow: windows were dropped for newer ones. `count` is since the last line.",
    "windows-incomplete": "Windows of a file, or of a stream from now on, lack audio or video; `reason` says why.",
    # history
    "history-cut": "The database was larger than `store.max_mb`. The oldest days were removed.",
    "history-migrated": "The database had an older version and was converted to the newest.",
    "history-row-refused": "The database refused a row because of its content. The row is not stored.",
    "history-started": "The history runs. Daemons may start later.",
    "history-stopping": "The history ends.",
    "history-write-failed": "Nothing can be stored now. Messages wait for the next try; `lost` counts dropped ones.",
    "history-write-recovered": "Messages are stored again, also those that waited.",
    # model
    "engine-unusable": "ONNX Runtime is installed but cannot be loaded. PyTorch does its work.",
    # mqtt
    "bridge-losing": "The bridge has dropped events for the broker, or missed messages of the daemon. Totals.",
    "bridge-started": "The MQTT bridge runs. Daemon and broker may come later.",
    "bridge-stopping": "The MQTT bridge ends.",
    "broker-connected": "The bridge is connected to the MQTT broker.",
    "broker-disconnected": "The link to the MQTT broker was lost. The bridge reconnects.",
    "broker-refused": "The MQTT broker refused the login. The bridge tries again; logged once for each reason.",
    "broker-unreachable": "The MQTT broker does not answer. The bridge tries again; logged once for each reason.",
    "message-unreadable": "A message cannot be read: the daemon is newer, or another program publishes there.",
    "signal-received": "A signal asked the program to end. `name` is its name.",
    # sources
    "clock-stepped": "A device's clock jumped, or the machine was too slow to read it: its stream has a gap.",
    "file-damaged": "A media file is cut short, or has packets that cannot be decoded; the rest of it was read.",
    "media-joined": "Time stamps go back or jump at `at_s`: another part begins there, without a gap.",
    "media-refused": "Of a file, so much overlaps what was read before, or cannot be decoded and was ignored.",
    "part-skipped": "A part of a joined file cannot be read, or lacks the track that is wanted; the others are read.",
    "recent-sound-failed": "A stretch of recent sound could not be written.",
    "snapshot-failed": "A snapshot of an event could not be written; `reason` says why.",
    "source-ended": "A file without `loop`, or standard input, has ended.",
    "source-leaving": "A reload stops this source, because its stream was removed or it was changed.",
    "source-lost": "A source failed, exited, stalled or froze; it restarts after `retry_s` seconds.",
    "source-state": "A source entered another state. Logged at debug level.",
    "source-waiting": "A pipe has no writer yet. The source waits for one; this is no fault.",
    "source-up": "A source delivers its first data after its start or restart.",
    "track-chosen": "The audio track that is used, of all `tracks`. A warning if there are several and none is set.",
    "video-format-changed": "A camera delivers another size than the configuration sets.",
    "video-rate-low": "A camera delivers fewer frames a second than configured: the room is dark, or the format slow.",
    "worker-unkillable": "A source's worker process did not end when it was killed: its driver hangs in the kernel.",
    # wire
    "client-key-removed": "A client's key was removed from the allow-list. All subscribers are disconnected once.",
    "client-key-unread": "A client's key file cannot be read. The client keeps the key that was read before.",
    "client-keys-read": "The folder of client keys was read. `clients` lists the admitted clients.",
    "client-keys-unread": "The folder of client keys cannot be read. The clients listed before stay admitted.",
    "client-refused": "A client was refused because its key is not on the allow-list, or because it sent none.",
    "messages-missed": "Subscribers have missed messages. `count` and `overflows` are totals since boot.",
    "stale-socket-removed": "The socket file of a daemon that no longer runs was removed.",
    "subscribers-cut": "All subscribers were disconnected. Those that are admitted reconnect by themselves.",
    "subscriptions-exceeded": "There were more subscriptions than any honest use needs. All are disconnected.",
    # training
    "ambient-progress": "The count of false alarms has scored this many hours without events.",
    "calibration-fitted": "The width of the calibration's prior was chosen; `losses` has the log loss of each width.",
    "clip-unusable": "A clip is skipped or refused: its line is wrong, or its file is missing or unreadable.",
    "clips-added": "All sounds of a training source are in the corpus; `total_s` is the length of the corpus so far.",
    "clips-unreadable": "A fit without a cache could not decode `count` clips and used others in their place.",
    "duplicate-dropped": "A sound for training is dropped, because `of` names the same sound among the held-out ones.",
    "faults-omitted": "More clips are unusable than are logged one by one.",
    "features-collected": "This many windows or streams have passed the network. A last layer is fitted after that.",
    "fit-progress": "How far a stage of a fit is. Logged every 10 s if there is no terminal.",
    "sense-fitted": "The classifier of one sense was fitted to windows; losses are sums over labels.",
    "senses-progress": "A classifier of a sense is being fitted.",
    "head-fitted": "A last layer was fitted to quiet; `highest_*` are means of the highest wrong scores.",
    "rehearsal-missing": "The whole network is trained with no clips that keep its old labels.",
    "renderer-differs": "A program that renders sounds has another version than in the recipe. Sounds may differ.",
    "shard-written": "A shard of training windows is complete.",
    "sound-undecodable": "A file of a training source cannot be decoded and is skipped.",
    "windows-written": "All windows of a held-out split are written.",
}
