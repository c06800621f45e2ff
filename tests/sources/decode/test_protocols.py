"""What FFmpeg can open, asked of FFmpeg."""

from perceiverd.sources.decode.protocols import missing
from perceiverd.sources.specs import SCHEMES


def test_what_cannot_be_opened_is_found() -> None:
    """A scheme that nobody knows is missing; tcp and rtsp are there, though nobody answers."""
    assert missing(("tcp", "nonsense", "rtsp", "http")) == ("nonsense",)


def test_what_a_configuration_may_name_can_be_opened() -> None:
    """PyAV's wheels have all of it."""
    assert missing(SCHEMES) == ()
