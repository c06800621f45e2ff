"""Files that a worker process decodes: what comes is the same, and what kills the worker costs one file."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from perceiverd.core.errors import MediaError
from perceiverd.core.media import Chunk, Frame, Media, MediaFormat, VideoFormat
from perceiverd.offline.decoding import Decoder
from perceiverd.offline.decoding_protocol import VideoDecoderName
from perceiverd.offline.decoding_worker import BLOCK_S
from perceiverd.sources.decode import container
from perceiverd.sources.specs import RawFormat
from tests.support.clips import write_clip
from tests.support.program import DEADLINE_S

WANTED = MediaFormat(16_000, VideoFormat(24, 32, 10))


def values(item: Media) -> tuple[int, bytes]:
    return item.start_ns, (item.pixels if isinstance(item, Frame) else item.samples).tobytes()


def worker_of(process: int) -> int:
    """The decoding worker among the children of this process."""
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread or a child may end meanwhile
            for thread in Path(f"/proc/{process}/task").glob("*/children"):
                for child in thread.read_text().split():
                    if b"decoding_worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
        time.sleep(0.02)
    raise AssertionError("no worker")


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """A function that returns a FIFO into which half a clip was written, by a writer that stays."""
    held: list[int] = []

    def make() -> Path:
        clip, fifo = write_clip(tmp_path / "half.mkv", audio_s=20, video_s=20), tmp_path / "fifo"
        os.mkfifo(fifo)

        def write() -> None:
            held.append(os.open(fifo, os.O_WRONLY))
            data = clip.read_bytes()
            os.write(held[0], data[: len(data) // 2])

        threading.Thread(target=write, daemon=True).start()
        return fifo

    yield make
    for descriptor in held:
        os.close(descriptor)


def test_a_worker_decodes_the_same(tmp_path: Path) -> None:
    """Every frame and sample is bit for bit what this process would decode, for all files of one worker."""
    with Decoder(WANTED) as decoder:
        for name in ("film.mp4", "film.mkv"):
            clip = write_clip(tmp_path / name, video_s=3, audio_s=3)
            here = [values(item) for item in container.read(clip, WANTED, block_s=BLOCK_S)]
            assert [values(item) for item in decoder.read(str(clip))] == here


@pytest.mark.parametrize("video", ["gpu", "auto"])
def test_a_gpu_that_is_not_there_leaves_the_video_to_the_cpu(tmp_path: Path, video: VideoDecoderName) -> None:
    """The frames are those of the CPU's decoder; with a GPU they may differ by rounding."""
    clip = write_clip(tmp_path / "a.mp4", audio_s=2, video_s=2)
    with Decoder(WANTED) as by_cpu, Decoder(WANTED, video=video) as decoder:
        for wanted, found in zip(by_cpu.read(str(clip)), decoder.read(str(clip)), strict=True):
            assert found.start_ns == wanted.start_ns
            if isinstance(found, Frame) and isinstance(wanted, Frame):
                assert np.abs(found.pixels.astype(int) - wanted.pixels.astype(int)).max() <= 3


def test_the_length_of_a_file_is_reported(tmp_path: Path) -> None:
    """The callback gets the length that the file states."""
    lengths: list[float] = []
    with Decoder(WANTED) as decoder:
        decoder.on_length = lengths.append
        list(decoder.read(str(write_clip(tmp_path / "a.wav", audio_s=2))))
    assert lengths == [pytest.approx(2, abs=0.1)]


def test_a_caller_may_stop_in_the_middle(tmp_path: Path) -> None:
    """The rest of a file that nobody wants does not mix with the next file."""
    long, short = write_clip(tmp_path / "long.wav", audio_s=60), write_clip(tmp_path / "s.wav", audio_s=1)
    with Decoder(WANTED) as decoder:
        items = decoder.read(str(long))
        next(items)
        items.close()  # type: ignore[attr-defined]  # it is a generator
        assert sum(len(item.samples) for item in decoder.read(str(short)) if isinstance(item, Chunk)) == 16_000


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGSEGV, "FFmpeg crashed (SIGSEGV)"),
        (signal.SIGABRT, "FFmpeg crashed (SIGABRT)"),
        (signal.SIGKILL, "probably because memory ran out"),
    ],
)
def test_a_crash_costs_one_file(
    tmp_path: Path, written: Callable[[], Path], number: signal.Signals, cause: str
) -> None:
    """If the worker dies, the media before are there, the error names the cause, and the next file is decoded."""
    clip = write_clip(tmp_path / "a.wav", audio_s=1)
    with Decoder(WANTED) as decoder:
        items = decoder.read(str(written()))
        next(items)
        os.kill(worker_of(os.getpid()), number)
        with pytest.raises(MediaError) as caught:
            list(items)
        assert cause in str(caught.value)
        assert "fifo" in str(caught.value)
        assert list(decoder.read(str(clip)))


def test_workers_that_start_together_have_pipes_of_their_own() -> None:
    """None holds the pipe of another, so a crash closes it, and is reported as one."""
    with contextlib.ExitStack() as stack:
        decoders = [stack.enter_context(Decoder(WANTED)) for _ in range(4)]
        threads = [threading.Thread(target=decoder.start) for decoder in decoders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        pipes = [os.fstat(decoder._results).st_ino for decoder in decoders]
        for decoder, own in zip(decoders, pipes, strict=True):
            assert decoder._process
            held = {each.stat().st_ino for each in Path(f"/proc/{decoder._process.pid}/fd").iterdir() if each.exists()}
            assert held & set(pipes) == {own}


def test_a_worker_that_hangs_is_killed(tmp_path: Path, written: Callable[[], Path]) -> None:
    """A worker without any progress is killed after a bound, and the next file is decoded."""
    clip = write_clip(tmp_path / "a.wav", audio_s=1)
    with Decoder(WANTED, hang_s=1) as decoder:
        items = decoder.read(str(written()))
        next(items)
        worker = worker_of(os.getpid())
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(MediaError, match="FFmpeg hangs: no progress for 1 s"):
            list(items)
        assert not Path(f"/proc/{worker}").exists()
        assert list(decoder.read(str(clip)))


def test_a_slow_writer_is_no_hang(tmp_path: Path) -> None:
    """A pipe may come and go as slowly as its writer wants."""
    clip, fifo = write_clip(tmp_path / "a.wav", audio_s=1), tmp_path / "fifo"
    os.mkfifo(fifo)

    def write() -> None:
        time.sleep(4)
        with fifo.open("wb", buffering=0) as pipe:
            data = clip.read_bytes()
            pipe.write(data[:1000])
            time.sleep(4)
            pipe.write(data[1000:])

    writer = threading.Thread(target=write)
    writer.start()
    with Decoder(WANTED, hang_s=3) as decoder:
        samples = sum(len(item.samples) for item in decoder.read(str(fifo)) if isinstance(item, Chunk))
    writer.join()
    assert samples == 16_000


def test_the_worker_waits_for_its_reader(tmp_path: Path) -> None:
    """A reader that takes its time costs no memory: the worker waits with a full pipe."""
    clip = write_clip(tmp_path / "long.mkv", video_s=60, audio_s=60)
    with Decoder(MediaFormat(16_000, VideoFormat(224, 224, 25))) as decoder:
        items = decoder.read(str(clip))
        next(items)
        worker = worker_of(os.getpid())

        def used() -> tuple[int, str]:
            """Its memory in pages of 4 KiB, and how much it has read."""
            pages = Path(f"/proc/{worker}/statm").read_text().split()[1]
            return int(pages), Path(f"/proc/{worker}/io").read_text().partition("\n")[0]

        end_s, before = time.monotonic() + 60, used()
        time.sleep(1)
        while (after := used())[1] != before[1]:  # until it waits
            assert time.monotonic() < end_s
            before = after
            time.sleep(1)
        time.sleep(1)
        assert used()[0] - before[0] < 2 * 256  # all frames would be 225 MB


@pytest.mark.parametrize("form", ["s16le", "s32le", "f32le", "u8"])
def test_raw_samples_are_decoded(tmp_path: Path, form: str) -> None:
    """Samples without a container have the values that were written, with several channels mixed."""
    wave = (np.sin(np.arange(16_000) / 20) * 0.5).repeat(2)
    scaled = {"s16le": wave * 32767, "s32le": wave * (2**31 - 1), "f32le": wave, "u8": wave * 127 + 128}[form]
    kinds = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4", "u8": "u1"}
    path = tmp_path / "raw"
    path.write_bytes(scaled.astype(kinds[form]).tobytes())
    with Decoder(MediaFormat(16_000), RawFormat.parsed(f"{form},16000,2")) as decoder:
        samples = np.concatenate([item.samples for item in decoder.read(str(path)) if isinstance(item, Chunk)])
    assert samples == pytest.approx(wave[::2], abs=0.02)


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
def test_telephone_samples_are_decoded(tmp_path: Path, law: str) -> None:
    """G.711 without a container lasts as long as its bytes say."""
    path = tmp_path / "raw"
    path.write_bytes(b"\xd5" * 16_000)
    with Decoder(MediaFormat(16_000), RawFormat.parsed(f"{law},8000,1")) as decoder:
        samples = sum(len(item.samples) for item in decoder.read(str(path)) if isinstance(item, Chunk))
    assert samples == pytest.approx(32_000, abs=100)


def test_an_index_at_the_end_cannot_be_read_from_a_pipe(tmp_path: Path) -> None:
    """The error says what to do about an MP4 whose index comes last."""
    clip, fifo = write_clip(tmp_path / "a.mp4", audio_s=20), tmp_path / "fifo"
    os.mkfifo(fifo)
    with (
        subprocess.Popen(["cp", str(clip), str(fifo)], stderr=subprocess.DEVNULL),
        Decoder(WANTED) as decoder,
        pytest.raises(MediaError, match=r"fifo: its index \(moov\) is at its end"),
    ):
        list(decoder.read(str(fifo)))
