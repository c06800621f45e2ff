"""The MQTT bridge: a subscriber that forwards events to an MQTT broker, for Home Assistant and others.

It knows nothing of the daemon's inside. It needs the extra `mqtt`.
"""

from perceiverd.mqtt.bridge import BridgeOptions, run

__all__ = ["BridgeOptions", "run"]
