"""The words of the Emoji model: how a prompt becomes words, and words numbers."""

import difflib
import re
import unicodedata

TOKENS = 12
# Number 0 fills empty places and 1 stands for the whole prompt; known words follow.
PAD, WHOLE, FIRST = 0, 1, 2
# Signs that carry meaning are spoken; every other punctuation is dropped.
SPOKEN = {"#": "hash", "*": "asterisk", "&": "and", "!": "exclamation", "?": "question"}


def words(text: str) -> list[str]:
    """Lower-case words without accents or punctuation."""
    for sign, spoken in SPOKEN.items():
        text = text.replace(sign, f" {spoken} ")
    text = text.replace("\u2019", "").replace("'", "")
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.findall(r"[a-z0-9]+", plain)


class Vocabulary:
    """The words that the model knows, in the order of their numbers."""

    def __init__(self, known: list[str]):
        self.known = known
        self.number = {word: FIRST + index for index, word in enumerate(known)}

    def __len__(self) -> int:
        """How many numbers there are."""
        return FIRST + len(self.known)

    def numbers(self, prompt: list[str]) -> list[int]:
        """The numbers of known words, filled to 12; words past the eleventh are left out."""
        row = [WHOLE, *(self.number[word] for word in prompt[: TOKENS - 1])]
        return row + [PAD] * (TOKENS - len(row))

    def nearest(self, word: str, count: int = 3) -> list[str]:
        return difflib.get_close_matches(word, self.known, count, 0.6)
