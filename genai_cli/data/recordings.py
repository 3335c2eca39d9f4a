"""WAV files of any kind as one channel of numbers at one rate, or with the reason why not."""

import math
import struct
from pathlib import Path

import numpy
import torch
from torch import Tensor

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # formats of a "fmt " chunk
ZEROS = 16  # of the sinc on each side, that a resampled value is the sum of
_AT_ONCE = 1 << 20  # products of a resampling held at a time


class BrokenSound(Exception):
    """Why a file cannot be an example."""


def read_wav(path: Path) -> tuple[Tensor, int]:
    """Samples (T,) float32 in [-1, 1], the mean of all channels, and their number a second. Raises BrokenSound.

    PCM of 8, 16, 24 and 32 bits, floats of 32 and 64 bits. A file that was cut off is broken.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BrokenSound(str(error.strerror)) from error
    if not content:
        raise BrokenSound("0 bytes")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise BrokenSound("not a WAV file")
    chunks = read_chunks(content)
    if len(chunks.get(b"fmt ", b"")) < 16 or b"data" not in chunks:
        raise BrokenSound("it lacks the description of its samples, or the samples")
    kind, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    if kind == EXTENSIBLE and len(chunks[b"fmt "]) >= 26:
        (kind,) = struct.unpack_from("<H", chunks[b"fmt "], 24)
    if channels == 0 or rate == 0 or frame != channels * ((bits + 7) // 8):
        raise BrokenSound(f"{channels} channels of {bits} bits, {rate} a second: that cannot be")
    data = chunks[b"data"]
    samples = to_floats(data[: len(data) // frame * frame], kind, bits)
    if not numpy.isfinite(samples).all():
        raise BrokenSound("samples that are not finite")
    if len(samples) == 0:
        raise BrokenSound("no samples")
    mono = samples.reshape(-1, channels).mean(1)
    return torch.from_numpy(mono.astype(numpy.float32)).clamp_(-1, 1), rate


def read_chunks(content: bytes) -> dict[bytes, bytes]:
    """The chunks of a RIFF file by name. Raises BrokenSound where the samples were cut off."""
    chunks: dict[bytes, bytes] = {}
    place = 12
    while place + 8 <= len(content):
        name, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        body = content[place + 8 : place + 8 + size]
        if name == b"data" and len(body) < size:
            raise BrokenSound(f"cut off: {len(body):,} of {size:,} bytes of samples are there")
        chunks.setdefault(name, body)
        place += 8 + size + size % 2
    return chunks


def to_floats(data: bytes, kind: int, bits: int) -> numpy.ndarray:
    """Samples of all channels, float64 in [-1, 1). Raises BrokenSound for a coding that is none of these."""
    match kind, bits:
        case (1, 8):
            return (numpy.frombuffer(data, numpy.uint8).astype(numpy.float64) - 128) / 128
        case (1, 16):
            return numpy.frombuffer(data, "<i2").astype(numpy.float64) / 2**15
        case (1, 24):
            padded = numpy.zeros((len(data) // 3, 4), numpy.uint8)
            padded[:, 1:] = numpy.frombuffer(data, numpy.uint8).reshape(-1, 3)
            return padded.reshape(-1).view("<i4").astype(numpy.float64) / 2**31
        case (1, 32):
            return numpy.frombuffer(data, "<i4").astype(numpy.float64) / 2**31
        case (3, 32 | 64):
            return numpy.frombuffer(data, "<f4" if bits == 32 else "<f8").astype(numpy.float64)
    raise BrokenSound(
        f"format {kind} of {bits} bits: only PCM of 8, 16, 24 or 32 bits and floats of 32 or 64 are read; convert it"
    )


def resample(sound: Tensor, rate: int, to: int) -> Tensor:
    """(T,) at `rate` samples a second to `to`: a sinc with a Hann window, which cuts off what `to` cannot hold.

    Band-limited interpolation (Smith & Gossett 1984): each new value is a sum over the old ones around its time.
    """
    if rate == to:
        return sound
    count = math.ceil(len(sound) * to / rate)
    scale = 0.97 * min(1.0, to / rate)  # where it cuts off, in shares of the old half rate
    reach = math.ceil(ZEROS / scale)
    padded = torch.nn.functional.pad(sound.double(), (reach, reach + 1))
    parts = []
    for places in torch.arange(count).split(max(1, _AT_ONCE // (2 * reach))):
        time = places.double() * rate / to  # in old samples
        taps = time.floor().long().unsqueeze(1) + torch.arange(1 - reach, reach + 1)  # (n, 2 reach)
        distance = (taps - time.unsqueeze(1)) * scale
        window = torch.cos(math.pi / 2 * (distance / ZEROS).clamp(-1, 1)).square()
        parts.append((padded[taps + reach] * torch.sinc(distance) * window).sum(1) * scale)
    return torch.cat(parts).float().clamp_(-1, 1)
