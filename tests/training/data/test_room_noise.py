"""Empty rooms: finite noise within its level."""

import numpy as np

from perceiverd.training.data.augment import WINDOW
from perceiverd.training.data.room_noise import LOUDEST_ROOM_DB, SILENT_ROOM_DB, empty_room


def test_empty_rooms_keep_their_level() -> None:
    """The noise of an empty room stays near its level, half of the rooms are louder than silence, none is too loud."""
    rng = np.random.default_rng(3)
    levels = []
    for _ in range(200):
        wave, level_db = empty_room(rng)
        levels.append(level_db)
        assert wave.shape == (WINDOW,)
        assert np.isfinite(wave).all()
        assert 20 * np.log10(max(float(np.std(wave)), 1e-6)) < max(level_db, SILENT_ROOM_DB) + 12
    assert 0.35 < np.mean(np.array(levels) > SILENT_ROOM_DB) < 0.65
    assert max(levels) <= LOUDEST_ROOM_DB
