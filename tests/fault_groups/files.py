"""Files of every kind as data sets, palettes, weight files, and for metrics.py."""
import io
import os
import socket
import tarfile
import zipfile
import zlib

import numpy as np
from PIL import Image

from fault_groups.bench import ANY, REFUSED, save_maps

MEMORY = 4 << 30  # bytes of address space


def run(bench):
    start = bench.fresh()
    maps = save_maps(start / "maps")
    for name, make in bench.some(KINDS.items(), 0.1):
        try_all(bench, maps, name, make, REFUSED if name.startswith("bad") else ANY)
    for name, content in archives(maps).items():
        for _ in bench.some(range(40), 0.05):
            at = bench.rng.randrange(len(content))
            flipped = bytearray(content)
            flipped[at] ^= 1 << bench.rng.randrange(8)
            for what in content[:at], bytes(flipped):
                make = lambda path, what=what: path.write_bytes(what)
                try_one(bench, maps, f"{name} damaged at byte {at}", make, name)
    for name in bench.some(NAMES, 0.2):
        make = lambda path, name=name: archive_with(path, name)
        try_one(bench, maps, f"the member {name!r}", make, "odd.zip")
    for text in bench.some(PALETTES, 0.2):
        words = ["data.py", "inspect", "--dataset", maps, "--side", "8", "--palette", "p.txt"]
        folder = bench.fresh()
        (folder / "p.txt").write_bytes(text)
        bench.judge(bench.call(*words, folder=folder), codes=ANY)
    weights(bench, maps)


def try_all(bench, maps, name, make, codes):
    """One odd file alone in a folder, beside good maps, and in place of the folder."""
    for where in "alone", "beside", "instead":
        folder = bench.fresh()
        if where == "beside":
            save_maps(folder / "d")
        elif where == "alone":
            (folder / "d").mkdir()
        path = folder / "d" if where == "instead" else folder / "d" / "odd.png"
        make(path)
        inspect_and_compare(bench, maps, folder, "d", f"{name}, {where}", codes)


def try_one(bench, maps, title, make, name):
    folder = bench.fresh()
    make(folder / name)
    inspect_and_compare(bench, maps, folder, name, title, ANY)


def inspect_and_compare(bench, maps, folder, name, title, codes):
    """Read a data set by two programs. What Pillow would read must be the same as ever."""
    for words in (["data.py", "inspect", "--dataset", name, "--side", "8", "--out", "p.png"],
                  ["metrics.py", maps, name, "--side", "8"]):
        result = bench.call(*words, folder=folder, limits={"RLIMIT_AS": MEMORY}, limit=20)
        result = result._replace(command=f"{title}: {result.command}")
        refused = result.code in REFUSED and words[0] == "data.py"
        left = ["a picture"] if refused and (folder / "p.png").exists() else []
        heavy = [f"{result.megabytes} MB"] if result.megabytes > 1500 else []
        # An odd image may be good enough for metrics.py, which also compares images.
        bench.judge(result, *left, *heavy, codes=codes if words[0] == "data.py" else ANY)


# ------------------------------------------------------------------------------------------- images
def image(mode="L", size=(8, 8), file="PNG", **options):
    """A function that saves an image of noise."""
    def save(path):
        rng = np.random.default_rng(0)
        bands = len(Image.new(mode, (1, 1)).getbands())
        shape = (size[1], size[0], bands)[:2 + (bands > 1)]
        kind = {"I": np.int32, "F": np.float32, "I;16": np.uint16}.get(mode, np.uint8)
        array = rng.integers(0, 3, shape).astype(kind)
        Image.fromarray(array).convert(mode).save(path, file, **options)
    return save


def written(content):
    return lambda path: path.write_bytes(content)


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(3 << 30)


def bound(path):
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(path.name)
    os.chdir(here)


def declares(width, height):
    """A PNG that declares these sides and holds hardly anything."""
    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return written(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
                   + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


def animated(path):
    frames = [Image.new("L", (8, 8), k) for k in (0, 9)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


KINDS = {
    "bad: empty": written(b""), "bad: a byte": written(b"\x89"), "bad: text": written(b"hello\n"),
    "bad: noise": written(bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8))),
    "bad: zeros": written(bytes(10_000)), "bad: HTML": written(b"<html>404</html>"),
    "bad: LFS pointer": written(b"version https://git-lfs.github.com/spec/v1\n"),
    "bad: 3 GB sparse": sparse, "bad: fifo": os.mkfifo, "bad: socket": bound,
    "bad: loop": lambda path: path.symlink_to(path.name),
    "bad: dangling": lambda path: path.symlink_to("nothing"),
    "bad: /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "bad: declares 2^31": declares(1 << 31, 1 << 31), "bad: declares 60000": declares(60000, 60000),
    "bad: declares 9000": declares(9000, 9000), "bad: declares 0": declares(0, 8),
    "grey": image(), "grey and alpha": image("LA"), "RGB": image("RGB"), "RGBA": image("RGBA"),
    "CMYK": image("CMYK", file="TIFF"), "float": image("F", file="TIFF"),
    "32 bit": image("I", file="TIFF"), "1 bit": image("1"), "palette": image("P"),
    "YCbCr": image("YCbCr", file="TIFF"), "LAB": image("LAB", file="TIFF"),
    "JPEG": image("RGB", file="JPEG"), "WebP": image("RGB", file="WEBP"),
    "GIF": image("P", file="GIF"), "BMP": image("P", file="BMP"), "animated": animated,
    "1x1": image(size=(1, 1)), "1x20000": image(size=(20_000, 1)), "5000x2": image(size=(2, 5000)),
    "photo": image("RGB", (640, 480))}


# ----------------------------------------------------------------------------------------- archives
def archives(maps):
    """{name: content} of the maps in archives, and of one map."""
    paths = sorted(maps.iterdir())
    found = {"map.png": paths[0].read_bytes()}
    for name, compression in ("stored.zip", 0), ("deflated.zip", 8):
        with zipfile.ZipFile(stream := io.BytesIO(), "w", compression) as archive:
            for path in paths:
                archive.write(path, path.name)
        found[name] = stream.getvalue()
    for name, mode in ("plain.tar", "w"), ("zipped.tar.gz", "w:gz"):
        with tarfile.open(fileobj=(stream := io.BytesIO()), mode=mode) as archive:
            for path in paths:
                archive.add(path, path.name)
        found[name] = stream.getvalue()
    return found


NAMES = ["../../a.png", "/etc/a.png", "C:\\a.png", "a\x00b.png", "a\nb.png", "\x1b[31m.png",
         "x" * 300 + ".png", "ä☃.png", "\u202egnp.png", ".hidden.png", "__MACOSX/a.png",
         "a/b/c.PNG", " .png", "-rf.png", "a.png/", "CON.png", "a.png"]


def archive_with(path, name):
    """A .zip of three maps, one of which has this name."""
    with zipfile.ZipFile(path, "w") as archive:
        for k, title in enumerate([name, "b.png", "c.png"]):
            stream = io.BytesIO()
            ids = np.arange(64, dtype=np.uint8).reshape(8, 8) % (k + 2)
            Image.fromarray(ids).save(stream, "PNG")
            archive.writestr(title, stream.getvalue())


PALETTES = [b"", b"\n\n", b"0 0 0 a\n", b"0 0 0\n1 1 1\n2 2 2\n", b"0 0 0 a\n1 1 1 b\n2 2 2 c\n",
            b"\xff\xfe0 0 0", b"\x00" * 99, b"0 0 0 \x1b[31m\n1 1 1 b\n2 2 2 c\n", b"256 0 0 a\n",
            b"-1 0 0 a\n", b"0.5 0 0 a\n", b"9" * 400 + b" 0 0 a\n", b"0 0 0 " + b"x" * 500 + b"\n",
            b"0 0 0\n" * 3, b"1 2\n", b"a b c d\n", b"# only a comment\n", b"0 0 0 a\r1 1 1 b\r",
            b"".join(b"%d 0 %d\n" % (k % 256, k // 256) for k in range(300)),
            b"0 0 0 a\n" * 200_000]


# ------------------------------------------------------------------------------------- weight files
def weights(bench, maps):
    """FID's weights: every kind of file that is none."""
    for name, make in bench.some(KINDS.items(), 0.05):
        folder = bench.fresh()
        make(folder / "w.pth")
        words = ["metrics.py", maps, maps, "--side", "8", "--weights", "w.pth"]
        result = bench.call(*words, folder=folder, limits={"RLIMIT_AS": MEMORY})
        bench.judge(result._replace(command=f"{name}: {result.command}"), codes=REFUSED)
