"""Jailbreak wrappers: the texts that a released training set has around harmful behaviours, found by cutting the behaviours out."""

from collections import Counter
from collections.abc import Iterable, Sequence

# Private-use characters stand for what was cut out: the whole behaviour, or its first, second and last third.
SLOTS = ("\ue000", "\ue001", "\ue002", "\ue003")


def pieces(behaviour: str) -> tuple[str, str, str, str]:
    """What fills the slots: the behaviour, and its thirds (in characters; the first ones are longer where it does not divide)."""
    share, rest = divmod(len(behaviour), 3)
    first, second = share + (rest > 0), 2 * share + rest
    return behaviour, behaviour[:first], behaviour[first:second], behaviour[second:]


def wrap(wrapper: str, behaviour: str) -> str:
    """The wrapper with a behaviour in its slots."""
    return wrapper.translate({ord(slot): piece for slot, piece in zip(SLOTS, pieces(behaviour), strict=True)})


def unwrap(prompt: str, behaviours: Sequence[str]) -> str | None:
    """The wrapper of a prompt that holds one of the behaviours letter by letter, whole or in thirds; None where there is none.

    The longest behaviour counts, so that one that stands in another does not.
    """
    longest_first = sorted(behaviours, key=len, reverse=True)
    for behaviour in longest_first:
        if behaviour in prompt:
            return prompt.replace(behaviour, SLOTS[0])
    for thirds in (pieces(behaviour)[1:] for behaviour in longest_first):
        if all(prompt.count(third) == 1 for third in thirds):
            for slot, third in zip(SLOTS[1:], thirds, strict=True):
                prompt = prompt.replace(third, slot)
            return prompt
    return None


def count_wrappers(prompts: Iterable[str], behaviours: Sequence[str]) -> tuple[Counter[str], int]:
    """How many prompts each wrapper has, and how many prompts hold no behaviour."""
    found = Counter(unwrap(prompt, behaviours) for prompt in prompts)
    return found, found.pop(None, 0)
