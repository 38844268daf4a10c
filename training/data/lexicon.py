"""Invented names, words and values. Names are split by a hash: evaluation names never occur in training."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SYLLABLES = (
    "ka ve lo mi ra tu san dor bel fin gar hol jin kel lum mar nor pel quin ros sel tam ul vor wex yar zan bri cal dra "
    "el fal gri hal is jo kir lan mon nev or pra rin sol tor ur val wil xan yel zor bar cor den fer gol a be chi du "
    "en fo ge hu im ja ko li ma ne o pi qua re si te us vi wa ya zu ash ber cro dan eth fla gwen har ing"
).split()
# Most words are common ones, so that a small model can know each; the long list keeps it used to unknown words.
COMMON = Path(__file__).with_name("common.txt").read_text(encoding="utf-8").split()
WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
RARE = 0.08
COLOURS = "red blue green black white silver amber violet orange teal brown yellow grey pink golden purple".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MATERIALS = (
    "steel oak brick granite glass copper marble bamboo concrete aluminium clay limestone carbon slate iron".split()
)
FOREIGN = (
    "你好 公司 北京 上海 集团 東京 さくら こんにちは 서울 안녕 Zoë José Müller Čapek Łódź Ångström Привет Москва naïve "
    "café São Tomé Ñandú señor Ελλάδα 数据 中文 大阪 株式会社 한국 fiancée über Göteborg Kraków"
).split()
# Ranges of code points: accented Latin, Greek, Cyrillic, kana, Chinese (three times, as the most frequent), Hangul.
SCRIPTS = (
    (0xE0, 0xF6),
    (0x3B1, 0x3C9),
    (0x430, 0x44F),
    (0x3041, 0x3093),
    (0x30A1, 0x30F3),
    *3 * ((0x4E00, 0x9FA5),),
    (0xAC00, 0xD7A3),
)
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def is_held_out(name: str) -> bool:
    """Whether an invented name is kept for evaluation (one in eight, by its hash)."""
    return zlib.crc32(name.lower().encode()) % 8 == 0


class Source:
    """A seeded stream of names and values of one split."""

    def __init__(self, rng: random.Random, held_out: bool = False) -> None:
        self.rng = rng
        self.held_out = held_out

    def choice(self, items: Sequence[T]) -> T:
        """One item, uniformly."""
        return self.rng.choice(items)

    def chance(self, probability: float) -> bool:
        """A coin flip."""
        return self.rng.random() < probability

    def name(self) -> str:
        """An invented name of this split, such as `Kavelo`."""
        while True:
            name = "".join(self.rng.choice(SYLLABLES) for _ in range(self.rng.choice((2, 2, 3)))).capitalize()
            if len(name) >= 4 and is_held_out(name) == self.held_out:
                return name

    def full_name(self) -> str:
        """First and last invented name."""
        return f"{self.name()} {self.name()}"

    def word(self) -> str:
        """A word: most are common English ones, some come from the long list."""
        return self.rng.choice(WORDS if self.rng.random() < RARE else COMMON)

    def words(self, low: int, high: int) -> str:
        """Several words, separated by blanks."""
        return " ".join(self.word() for _ in range(self.rng.randint(low, high)))

    def number(self) -> str:
        """An integer of one to five digits."""
        low, high = self.rng.choice(((2, 99), (100, 999), (1000, 9999), (10000, 99999)))
        return str(self.rng.randint(low, high))

    def small(self) -> str:
        """An integer below 100."""
        return str(self.rng.randint(2, 99))

    def decimal(self) -> str:
        """A number with one decimal."""
        return f"{self.rng.randint(0, 199)}.{self.rng.randint(1, 9)}"

    def year(self) -> str:
        """A year."""
        return str(self.rng.randint(1700, 2030))

    def date(self) -> str:
        """A date such as `May 3, 1987`."""
        return f"{self.rng.choice(MONTHS)} {self.rng.randint(1, 28)}, {self.rng.randint(1850, 2030)}"

    def hours(self) -> str:
        """Opening hours such as `8:30 to 17:00`."""
        return f"{self.rng.randint(5, 11)}:{self.rng.choice(('00', '15', '30', '45'))} to {self.rng.randint(14, 23)}:00"

    def colour(self) -> str:
        """A colour."""
        return self.rng.choice(COLOURS)

    def code(self) -> str:
        """A code such as `QT-418`."""
        return f"{self.rng.choice(LETTERS)}{self.rng.choice(LETTERS)}-{self.rng.randint(100, 999)}"

    def material(self) -> str:
        """A material."""
        return self.rng.choice(MATERIALS)

    def day(self) -> str:
        """A weekday."""
        return self.rng.choice(DAYS)

    def company(self) -> str:
        """A company such as `Orvalen Labs`."""
        return f"{self.name()} {self.rng.choice(('Labs', 'Works', 'Systems', 'Group', 'Foods', 'Motors', 'Energy'))}"

    def pair(self) -> str:
        """Two words, `a and b`."""
        return f"{self.word()} and {self.word()}"

    def foreign(self) -> str:
        """A short string outside ASCII; in training it is often random, so that the model learns to copy it."""
        if not self.held_out and self.chance(0.6):
            if self.chance(0.5):
                return "".join(self.rng.choices("".join(FOREIGN), k=self.rng.randint(1, 8)))
            first, last = self.choice(SCRIPTS)
            return "".join(chr(self.rng.randint(first, last)) for _ in range(self.rng.randint(1, 8)))
        return " ".join(self.rng.sample(FOREIGN, self.rng.choice((1, 1, 2))))
