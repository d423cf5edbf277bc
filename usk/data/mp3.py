"""How long an MP3 without a length in its header is: libsndfile guesses, from the bit rate of its first frame."""

from __future__ import annotations

TAGS = (b"Xing", b"Info", b"VBRI")  # in the first frame, where an encoder left the number of frames
KBITS = {  # layer III of MPEG 1, and of MPEG 2 and 2.5
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def unconditioned_samples(content: bytes) -> int | None:
    """Samples a channel in the frames of an MP3 that does not say how many it has; None for other files.

    ISO/IEC 11172-3 and 13818-3: a frame of layer III has 1,152 samples (MPEG 1) or 576.
    """
    place = 0
    if content[:3] == b"ID3" and len(content) > 10:
        size = 0
        for byte in content[6:10]:
            size = size << 7 | byte & 0x7F
        place = 10 + size
    samples = 0
    while (frame := _frame(content, place)) is not None:
        length, of_frame = frame
        if not samples and any(tag in content[place : place + 200] for tag in TAGS):
            return None
        place += length
        samples += of_frame
    return samples or None


def _frame(content: bytes, place: int) -> tuple[int, int] | None:
    """(bytes, samples) of the frame of layer III that begins there, None if none does."""
    header = content[place : place + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, rate, bit_rate = header[1] >> 3 & 3, header[2] >> 2 & 3, header[2] >> 4
    if version not in RATES_HZ or rate == 3 or not 0 < bit_rate < 15:
        return None
    first = version == 3
    samples = 1152 if first else 576
    length = samples // 8 * 1000 * KBITS[first][bit_rate] // RATES_HZ[version][rate] + (header[2] >> 1 & 1)
    return length, samples
