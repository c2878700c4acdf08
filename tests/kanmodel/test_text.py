from kanmodel.text import abbreviate, abbreviate_words


def test_titles_lose_whole_words():
    """A title that is too long ends at a word; one without a break that would keep half of it is cut in the middle."""
    assert abbreviate_words("Width of the 80 % interval (percentage points)", 33) == "Width of the 80 % interval …"
    assert abbreviate_words("temperature_of_the_northern_station", 20) == abbreviate(
        "temperature_of_the_northern_station", 20
    )
    assert abbreviate_words("short", 20) == "short"
