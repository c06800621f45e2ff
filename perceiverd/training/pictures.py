"""Pictures for the video branch: found in unpacked packages, labelled by path, split, and cached small.

What a file shows is told by the rules below, written after looking at every picture they name. Knows nothing
of windows or of teachers.
"""

import csv
import fnmatch
import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from perceiverd.labels import Ontology
from perceiverd.training.fetch import archive, read_rcc
from perceiverd.training.recipe import Source

LONGEST_SIDE = 256
"""Pixels; a window is 96 high and wide, so that a zoom to 2.7 still has detail."""

Kind = Literal["object", "negative", "unlabelled", "background"]
Split = Literal["train", "validation", "test"]

KINDS: dict[str, Kind] = {"-": "negative", "?": "unlabelled", "#": "background"}

HELD_OUT = "gcompris-qt-data"
"""Never trained on: its sounds and pictures are the test and the demo clip."""

CLIP = ("picosdeeuropa_by_Aitzol_Berasategi.jpg",)
"""Pictures of the demo clip that come from other packages: in no split at all."""

LICENCES = {
    "tuxpaint-stamps-default": "GPL-2",
    "openclipart-png": "public domain",
    "scratch": "CC BY-SA 3.0",
    "gnome-backgrounds": "CC BY-SA 3.0",
    "mate-backgrounds": "GPL-2+ / CC BY-SA",
    "plasma-workspace-wallpapers": "CC BY-SA 4.0 / LGPL-3",
    "lomiri-wallpapers-16.04": "CC BY 4.0 / CC BY-SA 4.0 / CC0",
    "lomiri-wallpapers-20.04": "CC BY-SA 3.0",
    "ukui-wallpapers": "CC BY-SA 4.0",
    HELD_OUT: "CC0 / CC BY / CC BY-SA / public domain a file",
}
"""The packages that are read. A licence is the package's summary; its copyright file is the authority."""

# Globs of package/path, without the part up to the folders named in ROOTS; the first match wins, a picture
# without a match isn't taken. After the glob: AudioSet names divided by |, or - (certainly nothing that has
# a visual label), ? (left to the teacher), # (a background: as -, and objects may stand in front of it).
RULES = tuple(
    (pattern.strip(), labels.strip())
    for line in """\
tux/*_mirror.png                          = !
tux/animals/amphibians/*                  = Frog
tux/animals/birds/cartoon/*               = ?
tux/animals/birds/chicken_profile.png     = Chicken, rooster
tux/animals/birds/hen.png                 = Chicken, rooster
tux/animals/birds/rooster.png             = Chicken, rooster
tux/animals/birds/crow.png                = Crow
tux/animals/birds/drake.png               = Duck
tux/animals/birds/duck.png                = Duck
tux/animals/birds/gander.png              = Goose
tux/animals/birds/*guineafowl.png         = Fowl
tux/animals/birds/owl.png                 = Owl
tux/animals/birds/pigeon.png              = Pigeon, dove
tux/animals/birds/turkey.png              = Turkey
tux/animals/birds/*                       = Bird
tux/animals/fish/*                        = ?
tux/animals/insects/cartoon/snail*        = ?
tux/animals/insects/cartoon/spider*       = ?
tux/animals/insects/cartoon/fly.png       = Fly, housefly
tux/animals/insects/cartoon/*             = Insect
tux/animals/insects/fly.png               = Fly, housefly
tux/animals/insects/bee.png               = Bee, wasp, etc.
tux/animals/insects/hornet.png            = Bee, wasp, etc.
tux/animals/insects/hoverfly.png          = Insect
tux/animals/insects/grasshopper.png       = Insect
tux/animals/insects/mantis.png            = Insect
tux/animals/insects/xanthia.png           = Insect
tux/animals/insects/*                     = ?
tux/animals/lizards/*                     = ?
tux/animals/mammals/apes/*                = Wild animals
tux/animals/mammals/aquatic/*             = Wild animals
tux/animals/mammals/bears/bear.png        = Wild animals
tux/animals/mammals/bears/european*       = Wild animals
tux/animals/mammals/bears/*               = -
tux/animals/mammals/badger.png            = Wild animals
tux/animals/mammals/bovines/bison.png     = Cattle, bovinae
tux/animals/mammals/bovines/bull.png      = Cattle, bovinae
tux/animals/mammals/bovines/cow*          = Cattle, bovinae
tux/animals/mammals/bovines/yak.png       = Cattle, bovinae
tux/animals/mammals/bovines/zebu.png      = Cattle, bovinae
tux/animals/mammals/bovines/*goat.png     = Goat
tux/animals/mammals/bovines/ram.png       = Sheep
tux/animals/mammals/bovines/sheep*        = Sheep
tux/animals/mammals/bovines/*             = Wild animals
tux/animals/mammals/camel/*               = Animal
tux/animals/mammals/cats/cartoon/*        = ?
tux/animals/mammals/cats/*                = Roaring cats (lions, tigers)
tux/animals/mammals/deer/*                = Wild animals
tux/animals/mammals/dogs/dog.png          = Dog
tux/animals/mammals/dogs/*                = Canidae, dogs, wolves
tux/animals/mammals/equines/horse.png     = Horse
tux/animals/mammals/equines/zebra.png     = Wild animals
tux/animals/mammals/equines/*             = Livestock, farm animals, working animals
tux/animals/mammals/pig*                  = Pig
tux/animals/mammals/wildboar.png          = Pig
tux/animals/mammals/hedgehog.png          = ?
tux/animals/mammals/rabbit*               = Animal
tux/animals/mammals/rodents/mouse.png     = Mouse
tux/animals/mammals/rodents/rabbit*       = Animal
tux/animals/mammals/rodents/*             = Rodents, rats, mice
tux/animals/mammals/*                     = Wild animals
tux/animals/marsupials/cartoon/*          = ?
tux/animals/marsupials/*                  = Wild animals
tux/animals/*                             = ?
tux/hobbies/camera_35mm.png               = Single-lens reflex camera
tux/hobbies/binoculars.png                = -
tux/hobbies/music/*/trumpet.png           = Trumpet
tux/hobbies/music/*/cymbal_crash.png      = Cymbal
tux/hobbies/music/*/drum_tomtom_floor.png = Drum
tux/hobbies/music/*/drumkit.png           = Drum kit
tux/hobbies/music/*/cello.png             = Cello
tux/hobbies/music/*/guitar2.png           = Electric guitar
tux/hobbies/music/*/guitar_electric.png   = Electric guitar
tux/hobbies/music/*/guitar_electric_bass.png = Bass guitar
tux/hobbies/music/*/guitar_classical.png  = Acoustic guitar
tux/hobbies/music/*/violin.png            = Violin, fiddle
tux/hobbies/music/*/bassoon.png           = Wind instrument, woodwind instrument
tux/household/arttools/scissors*          = Scissors
tux/household/arttools/*                  = -
tux/household/dishes/cartoon/*            = Dishes, pots, and pans
tux/household/dishes/utensils/*           = -
tux/household/dishes/*                    = Dishes, pots, and pans
tux/household/key.png                     = Keys jangling
tux/household/toilet.png                  = Toilet flush
tux/household/tools/hammer.png            = Hammer
tux/household/tools/mallet_metal.png      = Hammer
tux/household/tools/saw.png               = Sawing
tux/household/tools/wrench*               = Tools
tux/household/tools/plyers.png            = Tools
tux/household/tools/*                     = ?
tux/household/*                           = -
tux/military/vehicles/f22_raptor.png      = Fixed-wing aircraft, airplane
tux/military/*                            = ?
tux/naturalforces/explosion.png           = Explosion
tux/naturalforces/fire.png                = Fire
tux/naturalforces/lightningbolt.png       = Thunderstorm
tux/seasonal/newyears/fireworks*          = Fireworks
tux/seasonal/halloween/blackcat.png       = Cat
tux/seasonal/easter/bluebird.png          = Bird
tux/seasonal/easter/chick.png             = Chicken, rooster
tux/seasonal/easter/*                     = ?
tux/seasonal/*                            = -
tux/people/toys/*                         = -
tux/people/*                              = ?
tux/clothes/*                             = -
tux/food/*                                = -
tux/plants/*                              = -
tux/sports/basketball.png                 = ?
tux/sports/*                              = -
tux/medical/*                             = -
tux/symbols/clockface.png                 = Clock
tux/symbols/faces/*                       = -
tux/symbols/recycle.png                   = -
tux/town/cartoon/fountain.png             = Water
tux/town/cartoon/*                        = ?
tux/town/*                                = -
tux/vehicles/7spoke256.png                = ?
tux/vehicles/wheel_tractor.png            = ?
tux/vehicles/auto/truck.png               = Truck
tux/vehicles/auto/*                       = Car
tux/vehicles/construction/*               = Truck
tux/vehicles/cycle/*                      = Vehicle
tux/vehicles/emergency/sedan_police.png   = Police car (siren)
tux/vehicles/emergency/*                  = Fire engine, fire truck (siren)
tux/vehicles/farming/*                    = Vehicle
tux/vehicles/flight/balloon360.png        = ?
tux/vehicles/flight/cartoon/*             = Aircraft
tux/vehicles/flight/planes/*              = Fixed-wing aircraft, airplane
tux/vehicles/garbagetruck.png             = Truck
tux/vehicles/locomotive/cartoon/trainSign.png = -
tux/vehicles/locomotive/cartoon/toy_train.png = Train
tux/vehicles/locomotive/cartoon/tender.png = Train
tux/vehicles/locomotive/*                 = Railroad car, train wagon
tux/vehicles/masstransit/*                = Bus
tux/vehicles/race/*                       = Race car, auto racing
tux/vehicles/ship/chineseJunk.png         = Sailboat, sailing ship
tux/vehicles/ship/walnutBoat.png          = Sailboat, sailing ship
tux/vehicles/ship/*                       = Boat, Water vehicle
oca/animals/amphibian/*                   = !
oca/animals/birds/acquila*                = Bird
oca/animals/birds/cigno_architetto*       = Bird
oca/animals/birds/cormorant*              = Bird
oca/animals/birds/crow_01.png             = !
oca/animals/birds/duck_yellow*            = !
oca/animals/birds/gabbiano*               = Bird
oca/animals/birds/gallo_di*               = Chicken, rooster
oca/animals/birds/gufo*                   = Owl
oca/animals/birds/gull*                   = Bird
oca/animals/birds/jonathon*               = Bird
oca/animals/birds/puffin*                 = Bird
oca/animals/birds/tacchino*               = Turkey
oca/animals/birds/pollo*                  = Turkey
oca/animals/bugs/bee*                     = Bee, wasp, etc.
oca/animals/bugs/flying_wasp*01.png       = Bee, wasp, etc.
oca/animals/bugs/grass_hopper*            = Insect
oca/animals/bugs/ladybug_01*              = Insect
oca/animals/bugs/moschito_architetto*     = Mosquito
oca/animals/bugs/moschito_stecchito*      = Mosquito
oca/animals/mammals/bull_utrescu*         = Cattle, bovinae
oca/animals/mammals/vacca*                = Cattle, bovinae
oca/animals/mammals/dall_sheep*           = Sheep
oca/animals/mammals/sheep-md*             = Sheep
oca/animals/mammals/pecora*               = Sheep
oca/animals/mammals/dogs/*nicu*           = !
oca/animals/mammals/dogs/*                = Dog
oca/animals/mammals/goat*                 = Goat
oca/animals/mammals/horses/mechorse*      = !
oca/animals/mammals/horses/horse_2*       = !
oca/animals/mammals/horses/horse_1_rot*   = !
oca/animals/mammals/horses/*              = Horse
oca/animals/mammals/housecats/gatt*       = Cat
oca/animals/mammals/housecats/kitten*     = Cat
oca/animals/mammals/pig_marcelo*          = Pig
oca/animals/mammals/porcinet*             = Pig
oca/animals/mammals/big_cats/contour*     = !
oca/animals/mammals/big_cats/*            = Roaring cats (lions, tigers)
oca/animals/rana0*                        = Frog
oca/animals/red-eye_frog*                 = Frog
oca/office/telephone/numero_verde*        = !
oca/office/telephone/*sauvetage*          = !
oca/office/telephone/*incendi*            = !
oca/office/telephone/*                    = Telephone
oca/recreation/music/cello_ganson*        = Cello
oca/recreation/music/cello_mo*            = Cello
oca/recreation/music/djambf*              = Drum
oca/recreation/music/africandrum*         = Drum
oca/recreation/music/drums_jarno*         = Drum kit
oca/recreation/music/electric_guitar*     = Electric guitar
oca/recreation/music/flute*               = Flute
oca/recreation/music/french_horn*         = French horn
oca/recreation/music/guitar_jarno_vasamaa1.png = Acoustic guitar
oca/recreation/music/guitar_jarno_vasamaa2.png = Electric guitar
oca/recreation/music/guitar_*             = Guitar
oca/recreation/music/bass_guitar*         = Bass guitar
oca/recreation/music/harp*                = Harp
oca/recreation/music/maracas*             = Maraca
oca/recreation/music/oboe*                = Wind instrument, woodwind instrument
oca/recreation/music/piano_geraint*       = Piano
oca/recreation/music/piano_*              = Keyboard (musical)
oca/recreation/music/saxophone*           = Saxophone
oca/recreation/music/tenor_trombone*      = Trombone
oca/recreation/music/trumpet_b_flat*      = Trumpet
oca/recreation/music/trumpet_pocket*      = Trumpet
oca/recreation/music/violin*              = Violin, fiddle
oca/recreation/music/xylophone*           = Marimba, xylophone
oca/transportation/vehicles/aircraft*     = Fixed-wing aircraft, airplane
oca/transportation/vehicles/ambulans*     = Ambulance (siren)
oca/transportation/vehicles/bicycle*      = Bicycle
oca/transportation/vehicles/vtt*          = Bicycle
oca/transportation/vehicles/big_truck*    = Truck
oca/transportation/vehicles/small_truck*  = Truck
oca/transportation/vehicles/blazer*       = Car
oca/transportation/vehicles/4wd*          = Car
oca/transportation/vehicles/road_runner*  = Car
oca/transportation/vehicles/car.png       = Car
oca/transportation/vehicles/old_car*      = Car
oca/transportation/vehicles/bus[12]*      = Bus
oca/transportation/vehicles/trattore*     = Vehicle
oca/transportation/vehicles/trawler*      = Boat, Water vehicle
scr/Backgrounds/Nature/wave.jpg           = Waves, surf
scr/Backgrounds/Nature/beach-malibu.*     = Ocean
scr/Backgrounds/Nature/water-and-rocks.*  = Stream
scr/Backgrounds/Nature/*.jpg              = #
scr/Backgrounds/Outdoors/train-tracks*    = ?
scr/Backgrounds/Outdoors/*.jpg            = #
scr/Backgrounds/Indoors/kitchen.jpg       = ?
scr/Backgrounds/Indoors/*.jpg             = #
scr/Backgrounds/Sports/*.jpg              = #
wall/*screenshot*                         = !
wall/*Dragonfly*                          = ?
wall/*Kleiber*                            = Bird
wall/*LadyBird*                           = Insect
wall/*friends*                            = ?
wall/*free_by*                            = ?
wall/*umang*                              = ?
wall/*Aqua.jpg                            = ?
wall/*goldfish*                           = ?
wall/*the-mouse*                          = ?
wall/*firstgeneration*                    = ?
wall/*Picture_*                           = ?
wall/*Wine*                               = ?
wall/*Elephants*                          = -
wall/*MATE*                               = -
wall/*GreenTraditional*                   = -
wall/*/contents/images*/1080x1920*        = !
wall/*/contents/images*/720x1440*         = !
wall/*/contents/images*/1622x2880*        = !
wall/*                                    = #
gc/explore_farm_animals/*/chicken.webp    = Chicken, rooster
gc/explore_farm_animals/*/cow.webp        = Cattle, bovinae
gc/explore_farm_animals/*/dog.webp        = Dog
gc/explore_farm_animals/*/cat.webp        = Cat
gc/explore_farm_animals/*/duck.webp       = Duck
gc/explore_farm_animals/*/horse.webp      = Horse
gc/explore_farm_animals/*/owl.webp        = Owl
gc/explore_farm_animals/*/pig.webp        = Pig
gc/explore_farm_animals/*/sheep.webp      = Sheep
gc/explore_world_animals/*/bison.webp     = Cattle, bovinae
gc/explore_world_animals/*/scarlet_macaw.webp = Bird
gc/explore_world_animals/*/jaguar.webp    = Wild animals
gc/explore_world_animals/*/kangaroo.webp  = Wild animals
gc/explore_world_animals/*/koala.webp     = Wild animals
gc/explore_world_animals/*/lemur.webp     = Wild animals
gc/explore_world_animals/*/moose.webp     = Wild animals
gc/explore_world_animals/*/panda.webp     = Wild animals
gc/explore_world_animals/*/polar_bear.webp = Wild animals
gc/explore_world_animals/*/giraffe.webp   = Wild animals
gc/explore_world_music/*/africa.webp      = Drum
gc/explore_world_music/*/america.webp     = Drum kit|Electric guitar
gc/explore_world_music/*/mexico.webp      = Trumpet
gc/explore_world_music/*/australia.webp   = Didgeridoo
gc/explore_world_music/*/orchestra.webp   = Orchestra
gc/erase/*/bee.webp                       = Bee, wasp, etc.
gc/erase/*/butterfly.webp                 = Insect
gc/erase/*/calf.webp                      = Cattle, bovinae
gc/erase/*/cheetah.webp                   = Wild animals
gc/erase/*/giraffe.webp                   = Wild animals
gc/erase/*/gibbon.webp                    = Wild animals
gc/erase/*/goat.webp                      = Goat
gc/erase/*/gorilla.webp                   = Wild animals
gc/erase/*/gosling.webp                   = Goose
gc/erase/*/heron.webp                     = Bird
gc/erase/*/horse.webp                     = Horse
gc/erase/*/kingfisher.webp                = Bird
gc/erase/*/kitten.webp                    = Cat
gc/erase/*/long_nosed_monkey.webp         = Wild animals
gc/erase/*/macaque.webp                   = Wild animals
gc/erase/*/meerkats.webp                  = Wild animals
gc/erase/*/northern_harrier.webp          = Bird
gc/erase/*/nubian_ibex.webp               = Goat
gc/erase/*/penguin.webp                   = Bird
gc/erase/*/red_panda.webp                 = Wild animals
gc/erase/*/rhinoceros.webp                = Wild animals
gc/erase/*/spoonbills.webp                = Bird
gc/erase/*/squirrel.webp                  = Rodents, rats, mice
gc/erase/*/swans.webp                     = Bird
gc/erase/*/toucan.webp                    = Bird
gc/categorization/*/tools/hammer*         = Hammer
gc/categorization/*/tools/scissors*       = Scissors
gc/categorization/*/others/plate.webp     = Dishes, pots, and pans
gc/categorization/*/others/cup.webp       = Dishes, pots, and pans
gc/categorization/*/others/pan.webp       = Dishes, pots, and pans
gc/categorization/*/tools/measuring*      = -
gc/categorization/*/tools/multimeter*     = -
gc/categorization/*/tools/tweezer*        = -
gc/categorization/*/tools/nailCutter*     = -
gc/categorization/*/others/baseball.webp  = -
gc/categorization/*/others/blackslate.webp = -
gc/categorization/*/others/bucket.webp    = -
gc/categorization/*/others/bulb.webp      = -
gc/categorization/*/others/chair.webp     = -
gc/categorization/*/others/erasers.webp   = -
gc/categorization/*/others/igloo.webp     = -
gc/categorization/*/others/pencil.webp    = -
gc/categorization/*/others/pillow.webp    = -
gc/categorization/*/others/volleyball.webp = -
gc/categorization/*/renewable/solar*      = -
gc/categorization/*/renewable/windmill*   = -
""".splitlines()
    for pattern, _, labels in [line.partition(" = ")]
)

ROOTS = {
    "tuxpaint-stamps-default": ("tux", "usr/share/tuxpaint/stamps"),
    "openclipart-png": ("oca", "usr/share/openclipart/png"),
    "scratch": ("scr", "usr/share/scratch/Media"),
    HELD_OUT: ("gc", "."),
} | {name: ("wall", "usr/share") for name in LICENCES if "backgrounds" in name or "wallpapers" in name}
"""For each package the short name that its rules begin with, and the folder that paths are counted from."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Picture:
    """One cached picture."""

    package: str
    path: str
    """Inside the package, from its folder in ROOTS."""
    split: Split
    kind: Kind
    labels: tuple[str, ...]
    """AudioSet names, none but for objects; ancestors are not written out."""
    licence: str
    sha256: str
    """Of the original file; its first 16 digits name the cached one."""

    @property
    def file(self) -> str:
        return self.sha256[:16] + ".webp"


def unpack(debs: Path, packages: Path) -> None:
    """One folder a package under `packages`, as `build` wants them; a .deb not yet in `debs` is downloaded."""
    for package in ROOTS:
        folder = packages / package
        if folder.exists():
            continue
        deb = archive(Source(kind="deb", name=package, licence=LICENCES[package]), debs)
        subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
        if package == HELD_OUT:
            for resource in sorted(folder.rglob("*.rcc")):
                for path, content in read_rcc(resource.read_bytes()):
                    if Path(path).suffix in SUFFIXES:
                        file = folder / resource.stem / path
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(content)


def rule_of(path: str) -> str | None:
    """What the first matching rule says of `short/path`; None when the picture isn't to be taken."""
    labels = next((labels for pattern, labels in RULES if fnmatch.fnmatchcase(path, pattern)), "!")
    return None if labels == "!" else labels


def collect(packages: Path, ontology: Ontology) -> Iterator[tuple[Picture, npt.NDArray[np.uint8]]]:
    """Every picture that a rule takes, with its pixels (H, W, 4) BGRA; byte-identical ones once.

    `packages` holds one folder a package, as `dpkg-deb -x` leaves it; gcompris's archives already read into
    `gcompris-qt-data/<archive>/...`.
    """
    seen: set[str] = set()
    for package, (short, root) in ROOTS.items():
        folder = packages / package / root
        for file in sorted(folder.rglob("*")):
            path = file.relative_to(folder).as_posix()
            if file.suffix.lower() not in SUFFIXES or file.is_symlink() or file.name in CLIP:
                continue
            rule = rule_of(f"{short}/{path}")
            if rule is None:
                continue
            encoded = file.read_bytes()
            digest = hashlib.sha256(encoded).hexdigest()
            pixels = shrink(encoded)
            if digest in seen or pixels is None:
                continue
            seen.add(digest)
            kind = KINDS.get(rule, "object")
            labels = tuple(rule.split("|")) if kind == "object" else ()
            for label in labels:
                ontology.find(label)  # a misspelt rule ends here
            split: Split = "test" if package == HELD_OUT else "train"
            yield Picture(package, path, split, kind, labels, LICENCES[package], digest), pixels


def shrink(encoded: bytes) -> npt.NDArray[np.uint8] | None:
    """Pixels (H, W, 4) BGRA, longest side at most LONGEST_SIDE, empty margins cut; None if unreadable or bare."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    if image.dtype == np.uint16:
        image = (image // 256).astype(np.uint8)
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGRA)
    elif image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    ys, xs = np.nonzero(image[..., 3] > 16)
    if len(ys) == 0:
        return None
    image = image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    scale = LONGEST_SIDE / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        # Weighted by opacity, or the colour hidden under transparency bleeds into the edge.
        alpha = image[..., 3:].astype(np.float32) / 255
        premultiplied = np.concatenate([image[..., :3] * alpha, 255 * alpha], axis=2)
        small = cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA)
        colour = small[..., :3] / np.maximum(small[..., 3:] / 255, 1e-3)
        image = np.clip(np.dstack([colour, small[..., 3:]]) + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(image, np.uint8)


def hold_out(pictures: list[Picture]) -> list[Picture]:
    """The pictures with a fifth of each label's moved to validation, at least one of three, by hash.

    Pictures are taken in the order of their hash, so that adding a package moves few of the others.
    """
    groups: dict[tuple[str, ...], list[Picture]] = {}
    for picture in sorted(pictures, key=lambda picture: picture.sha256):
        if picture.split == "train":
            groups.setdefault(picture.labels or (picture.kind,), []).append(picture)
    held = {p.sha256 for group in groups.values() for p in group[: max(round(len(group) / 5), len(group) >= 3)]}
    return [
        Picture(p.package, p.path, "validation", p.kind, p.labels, p.licence, p.sha256) if p.sha256 in held else p
        for p in pictures
    ]


def build(packages: Path, cache: Path, ontology: Ontology) -> list[Picture]:
    """Fills `cache` with one WebP a picture and `index.tsv`."""
    cache.mkdir(parents=True, exist_ok=True)
    pictures = []
    for picture, pixels in collect(packages, ontology):
        # OpenCV's 101 means lossless: the alpha edge of a cut-out doesn't bear compression.
        quality = 101 if (pixels[..., 3] < 255).any() else 92
        cv2.imwrite(str(cache / picture.file), pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
        pictures.append(picture)
    pictures = hold_out(pictures)
    with (cache / "index.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["package", "path", "split", "kind", "labels", "licence", "sha256"])
        for p in pictures:
            writer.writerow([p.package, p.path, p.split, p.kind, "|".join(p.labels), p.licence, p.sha256])
    return pictures


def read_index(cache: Path) -> list[Picture]:
    """The pictures of a cache, in the order of `targets.npy`."""
    with (cache / "index.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Picture(
                row["package"],
                row["path"],
                row["split"],  # type: ignore[arg-type]  # written by build
                row["kind"],  # type: ignore[arg-type]
                tuple(filter(None, row["labels"].split("|"))),
                row["licence"],
                row["sha256"],
            )
            for row in csv.DictReader(file, delimiter="\t")
        ]


def read_pixels(cache: Path, picture: Picture) -> npt.NDArray[np.uint8]:
    """Pixels (H, W, 4), channels RGBA."""
    image = cv2.imread(str(cache / picture.file), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise FileNotFoundError(cache / picture.file)
    code = cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGBA
    return np.asarray(cv2.cvtColor(image, code), np.uint8)
