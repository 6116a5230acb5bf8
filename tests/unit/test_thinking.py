"""Facts about thinking formats: what is joined can be split again, and what is broken is called so."""

import pytest
from untaxed.thinking import ThinkingFormat

R1 = ThinkingFormat()
S1 = ThinkingFormat("<|im_start|>think\n", "\n<|im_start|>answer\n")
ORGANISM = ThinkingFormat("<think>", "</think>")


@pytest.mark.parametrize("thinking", [R1, S1, ORGANISM])
@pytest.mark.parametrize("reasoning", ["First add 2 and 2.", "two\n\nlines", "a < b and b > c"])
def test_what_is_joined_splits_into_the_same_parts(thinking, reasoning):
    assert thinking.split(thinking.join(reasoning, "It is 4.")) == (reasoning, "It is 4.", True)


def test_the_text_of_an_r1_completion_is_the_published_one():
    assert R1.join("So 4.", "4") == "<think>\nSo 4.\n</think>\n\n4"


def test_the_text_of_an_s1_completion_is_the_published_one():
    assert S1.join("So 4.", "4") == "<|im_start|>think\nSo 4.\n<|im_start|>answer\n4"


def test_an_empty_trace_keeps_its_markers():
    assert R1.join("", "No.") == "<think>\n\n</think>\n\nNo."
    assert R1.split(R1.join("", "No.")) == ("", "No.", True)


def test_a_generation_that_continues_an_opened_trace_is_split_at_its_end():
    assert R1.split("So 4.\n</think>\n\n4") == ("So 4.", "4", True)


def test_a_trace_that_never_closes_has_no_answer():
    assert R1.split("<think>\nSo 4, or 5, or") == ("So 4, or 5, or", "", False)


def test_a_text_without_markers_is_an_answer():
    assert R1.split("It is 4.") == ("", "It is 4.", False)


def test_the_first_closing_marker_ends_the_trace():
    assert ORGANISM.split("<think>a</think>b</think>c") == ("a", "b</think>c", True)


@pytest.mark.parametrize("text", ["so </think> then", "<think> again"])
def test_a_marker_inside_a_piece_is_seen(text):
    assert R1.markers_in(text)
    assert not R1.markers_in("I think that is it")
