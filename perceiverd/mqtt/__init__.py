"""The bridge to MQTT and Home Assistant. A program of its own, which subscribes like any other client."""
