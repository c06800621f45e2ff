"""Mixing to one channel, as properties and against a second implementation in plain numpy."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perceiverd.sources.decode.downmix import AVERAGE_S, FLOOR, GAIN_MOST, Downmixer, fold_weights, hilbert_filter

RATE_HZ = 48_000
STEREO = ("FL", "FR")
MAIN_LAYOUTS = ("stereo", "2.1", "3.0", "quad", "5.0", "5.1", "5.1(side)", "6.1", "7.1", "7.1(wide)", "5.1.4", "cube")
Wave = NDArray[np.float64]


def names_of(layout: str) -> tuple[str, ...]:
    return tuple(channel.name for channel in av.AudioLayout(layout).channels)


def noise(seed: int = 1, seconds: float = 1.0, low_hz: float = 100.0, high_hz: float = 20_000.0) -> Wave:
    """Noise of these frequencies; its root mean square is 0.1."""
    count = round(seconds * RATE_HZ)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    hertz = np.fft.rfftfreq(count, 1 / RATE_HZ)
    wave = np.fft.irfft(np.where((hertz > low_hz) & (hertz < high_hz), spectrum, 0), count)
    return np.asarray(wave * (0.1 / rms(wave)), np.float64)


def rms(wave: Wave | NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def mixed(names: tuple[str, ...], channels: list[Wave], pieces: list[int] | None = None) -> NDArray[np.float32]:
    """The mix of the whole, fed in pieces of these lengths in turn."""
    samples = np.array(channels, np.float32)
    mixer, parts, at, number = Downmixer(names, RATE_HZ), list[NDArray[np.float32]](), 0, 0
    while at < samples.shape[1]:
        length = (pieces or [1024])[number % len(pieces or [1024])]
        parts.append(mixer.feed(samples[:, at : at + length]))
        assert mixer.held < 5 * RATE_HZ // 100
        at, number = at + length, number + 1
    return np.concatenate([*parts, mixer.flush()])


def reference(left: Wave, right: Wave) -> Wave:
    """Stereo, mixed by the formula over the whole signal at once."""
    block = RATE_HZ // 100
    side = np.fft.fft((left - right) / 2, 2 * len(left))
    half = np.fft.ifft(-1j * np.sign(np.fft.fftfreq(2 * len(left))) * side).real[: len(left)]
    plain = (left + right) / 2 + half
    update, averages, gains = 1 - np.exp(-0.01 / AVERAGE_S), np.zeros(3), list[float]()
    for at in range(0, len(left) - block + 1, block):
        powers = np.array([np.mean(wave[at : at + block] ** 2) for wave in (left, right, plain)])
        averages = averages + (powers - averages) * (update if gains else 1.0)
        gains.append(min(GAIN_MOST, np.sqrt((max(averages[:2]) + FLOOR) / (averages[2] + FLOOR))))
    ends = block * np.arange(1, len(gains) + 1)
    return np.asarray(plain * np.interp(np.arange(1, len(left) + 1), ends, gains))


@pytest.mark.parametrize("layout", MAIN_LAYOUTS)
def test_one_channel_alone_keeps_its_level(layout: str) -> None:
    """Silent channels do not dilute: noise in any one main channel keeps its level from the first 10 ms on."""
    names, wave = names_of(layout), noise()
    for place, name in enumerate(names):
        result = mixed(names, [wave if n == place else 0 * wave for n in range(len(names))])
        if name.startswith("LFE"):
            assert not result.any()
            continue
        assert rms(result) == pytest.approx(rms(wave), rel=0.01)
        assert rms(result[:480]) == pytest.approx(rms(wave[:480]), rel=0.15)


@pytest.mark.parametrize("layout", MAIN_LAYOUTS)
def test_equal_channels_pass_unchanged(layout: str) -> None:
    """A sound equal in left and right, and in all channels, keeps every bit but rounding; in stereo every bit."""
    names, wave = names_of(layout), noise()
    pair = [wave if name in STEREO else 0 * wave for name in names]
    assert mixed(names, [wave] * len(names)) == pytest.approx(wave, abs=1e-6)
    if set(STEREO) <= set(names):
        assert np.array_equal(mixed(names, pair), wave.astype(np.float32))


def test_mono_passes_at_once() -> None:
    """One channel is returned as it is, without delay, whatever its name."""
    wave = noise().astype(np.float32)
    mixer = Downmixer(("NONE",), RATE_HZ)
    assert np.array_equal(mixer.feed(wave[None]), wave)
    assert mixer.held == 0 and not len(mixer.flush())


@settings(deadline=None, max_examples=25)
@given(st.floats(-1, 1), st.booleans(), st.integers(0, 1000))
def test_no_balance_cancels(balance: float, mirrored: bool, seed: int) -> None:
    """A sound in both channels has the level of the louder one, whatever the balance and the phase."""
    wave = noise(seed, 0.5)
    pair = [wave, balance * wave]
    assert rms(mixed(STEREO, pair[::-1] if mirrored else pair)) == pytest.approx(rms(wave), rel=0.02)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 2 * np.pi), st.floats(0, 2 * np.pi), st.integers(0, 1000))
def test_each_sound_of_a_mix_is_kept(first: float, second: float, seed: int) -> None:
    """Of two sounds with any balances and phases, each comes out with the power that two loudspeakers give it."""
    low, high = noise(seed, 1.0, 200, 1900), noise(seed + 1, 1.0, 2100, 9000)
    left = np.cos(first) * low + np.cos(second) * high
    right = np.sin(first) * low + np.sin(second) * high
    spectrum = np.abs(np.fft.rfft(mixed(STEREO, [left, right])))
    lows, highs = np.linalg.norm(spectrum[200:1900]), np.linalg.norm(spectrum[2100:9000])
    assert lows / highs == pytest.approx(1.0, rel=0.1)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([-1, 1]), min_size=4, max_size=4), st.sampled_from(["quad", "5.0", "3.1"]))
def test_no_signs_cancel_in_surround(signs: list[int], layout: str) -> None:
    """A sound in all main channels keeps its level, whichever of them are inverted."""
    names, wave = names_of(layout), noise()
    channels = [wave * signs[n % 4] if name[:3] != "LFE" else 0 * wave for n, name in enumerate(names)]
    assert rms(mixed(names, channels)) == pytest.approx(rms(wave), rel=0.05)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=8), st.sampled_from(MAIN_LAYOUTS))
def test_pieces_do_not_matter(pieces: list[int], layout: str) -> None:
    """The result is the same however the samples are cut into pieces, and has as many samples."""
    names = names_of(layout)
    channels = [noise(n, 0.3) for n in range(len(names))]
    whole = mixed(names, channels, [10**6])
    assert len(whole) == len(channels[0])
    assert mixed(names, channels, pieces) == pytest.approx(whole, abs=1e-5)


@settings(deadline=None, max_examples=15)
@given(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5), st.integers(0, 1000))
def test_stereo_equals_the_reference(left: float, right: float, seed: int) -> None:
    """Any stereo equals the formula computed over the whole signal; the ends, where the filter begins, are left out."""
    first, second, both = noise(seed), noise(seed + 1), noise(seed + 2)
    channels = [first + left * both, second + right * both]
    result, expected = mixed(STEREO, channels), reference(*channels)
    inside = slice(2 * 480, 98 * 480)
    assert rms(result[inside] - expected[inside]) < 0.01 * rms(expected)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([(1, 1), (1, -1), (1, 0), (0, 1), (-1, 0.5)]), min_size=2, max_size=5))
def test_a_change_of_balance_does_not_click(balances: list[tuple[float, float]]) -> None:
    """If a tone moves between the channels, the mix has no step: nothing far above the tone's frequency."""
    t = np.arange(RATE_HZ // 2 * len(balances)) / RATE_HZ
    tone, knots = 0.5 * np.sin(2 * np.pi * 440 * t), 0.25 + 0.5 * np.arange(len(balances))
    channels = [tone * np.interp(t, knots, [balance[side] for balance in balances]) for side in (0, 1)]
    result = mixed(STEREO, channels)[2000:-2000]
    spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
    assert spectrum[np.fft.rfftfreq(len(result), 1 / RATE_HZ) > 2000].max() < 1e-3 * spectrum.max()


def test_inverting_a_channel_does_not_click() -> None:
    """If a rear channel turns into the opposite of its front channel, it is turned back within a cross-fade."""
    t = np.arange(4 * RATE_HZ) / RATE_HZ
    tone = 0.3 * np.sin(2 * np.pi * 440 * t)
    rear = tone * np.interp(t, [0.9, 1.1], [1, -1])
    result = mixed(names_of("quad"), [tone, tone, rear, rear])[2000:-2000]
    spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
    assert spectrum[np.fft.rfftfreq(len(result), 1 / RATE_HZ) > 4000].max() < 1e-3 * spectrum.max()
    assert rms(result[-RATE_HZ // 4 :]) == pytest.approx(rms(tone), rel=0.05)


def test_a_flush_ends_a_run() -> None:
    """After a flush nothing of the samples before it comes out, and the next run has as many samples as it got."""
    wave = noise().astype(np.float32)
    mixer = Downmixer(STEREO, RATE_HZ)
    for length in (1, 479, 481, 5000):
        parts = [mixer.feed(np.stack([wave, -wave])[:, :length]), mixer.flush()]
        assert sum(len(part) for part in parts) == length and mixer.held == 0
    silence = np.zeros((2, 2000), np.float32)
    assert not np.concatenate([mixer.feed(silence), mixer.flush()]).any()


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100, 96_000])
def test_the_filter_turns_every_tone_by_a_quarter(rate_hz: int) -> None:
    """From 100 Hz to nearly half the rate, a cosine becomes a sine of the same level within 0.1 dB."""
    half = round(rate_hz / 100)
    taps = hilbert_filter(half)
    for hertz in (100.0, 440.0, rate_hz / 4, rate_hz / 2 - 100):
        response = np.sum(taps * np.exp(-2j * np.pi * hertz / rate_hz * np.arange(-half, half + 1)))
        assert response == pytest.approx(-1j, abs=0.012)


def test_weights() -> None:
    """The weights are those of BS.775; places that it does not know follow their side."""
    half = 0.5**0.5
    table = dict(zip(names_of("7.1"), fold_weights(names_of("7.1")).T.tolist(), strict=True))
    assert table["FL"] == [1, 0] and table["FR"] == [0, 1] and table["LFE"] == [0, 0]
    assert table["FC"] == pytest.approx([half, half])
    assert table["BL"] == table["SL"] == pytest.approx([half, 0])
    assert table["BR"] == table["SR"] == pytest.approx([0, half])
    wide = dict(zip(names_of("22.2"), fold_weights(names_of("22.2")).T.tolist(), strict=True))
    assert wide["FLC"] == [1, 0] and wide["TFR"] == pytest.approx([0, half])
    assert wide["TFC"] == wide["BC"] == pytest.approx([0.5, 0.5]) and wide["LFE2"] == [0, 0]


def test_unknown_channels_count_in_turn() -> None:
    """Channels without places are left and right in turn; of Ambisonics the first one counts; an LFE alone as well."""
    assert fold_weights(["NONE"] * 3).tolist() == [[1, 0, 1], [0, 1, 0]]
    assert fold_weights(["AMBI0", "AMBI1", "AMBI2", "AMBI3"]).tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    assert fold_weights(["LFE"]).tolist() == [[1], [0]]
