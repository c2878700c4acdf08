"""Values have the decimals that their spread gives a meaning to, and steps their clock times."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from kanmodel.text import shorten_names


@pytest.fixture
def figures(server, open_tab):
    """Evaluates an expression of ``figures.js`` and ``history/moments.js`` in the page."""
    page = open_tab(server).show("forecast?model=nyc-weather")

    def evaluate(expression):
        modules = '{ ...(await import(at + "figures.js")), ...(await import(at + "history/moments.js")) }'
        at = "const at = document.querySelector('script[src$=\"app.js\"]').src.replace('app.js', '')"
        return page.evaluate(f"async () => {{ {at}; const with_ = {modules}; return {expression}; }}")

    return evaluate


def test_values_are_as_precise_as_their_spread(figures):
    """A twentieth of the spread is the last digit's least meaning; without a spread three digits stand."""
    said = figures(
        """[[-0.8317, "K", 3.5], [1017.94, "hPa", 6.9], [45123.4, "MW", 4800], [3, null, {std: 2, integer: true}],
        [-1e-17, "", {std: 0.7, integer: false}], [2e-9, "m", 1e-9], [0.12345, null, null], [null, "K", 3]]
        .map((given) => with_.formatValue(...given))"""
    )
    assert said == ["−0.8 K", "1017.9 hPa", "45,123 MW", "3", "0.00", "2.0e−9 m", "0.123", "unknown"]
    assert figures("[0.01, 1.64, -2].map((one) => with_.formatChange(one, 'K', 3.5))") == ["0.0 K", "+1.6 K", "−2.0 K"]
    assert figures("[1e-4, 0.018, -0.5].map((one) => with_.points(one, 'points'))") == [
        "0.0 points",
        "+1.8 points",
        "−50.0 points",
    ]


def test_steps_have_clock_times(figures):
    """As the time's own clock shows them, whatever its offset; days on an axis of days; and counts without times."""
    assert figures(
        """(() => {
          const times = {newest: with_.wallClock("2013-03-03T02:00+05:00"), step: 3600000};
          return [0, -2, -3, 1].flatMap((step) => [0, 24].map((count) => with_.stepLabel(step, times, count)))
            .concat(with_.stepLabel(-50, times, 168));
        })()"""
    ) == ["3 Mar, 02:00", "02:00", "3 Mar, 00:00", "3 Mar", "2 Mar, 23:00", "23:00", "3 Mar, 03:00", "03:00", "1 Mar"]
    daily = "{newest: with_.wallClock('2013-03-03'), step: 86400000}"
    assert figures(f"[with_.stepLabel(-1, {daily}), with_.stepLabel(-1, {daily}, 9)]") == ["2 Mar 2013", "2 Mar"]
    said = figures("[0, -3, 2].map((step) => with_.stepLabel(step)).concat(with_.stepLabel(-3, undefined, 9))")
    assert said == ["newest step", "3 before the newest", "2 after the newest", "−3"]


def test_long_names_lose_the_words_that_they_share(figures):
    """As long as they still differ; short names stay, and so does what would be nothing."""
    names = [f"plant_a_{place}_pump_{part}_celsius" for place in ("north", "south") for part in ("oil", "ring")]
    module = '(await import(at + "names.js")).distinctNames'
    short = figures(f"[...{module}({names}).values()]")
    assert short == ["a_north_pump_oil", "a_north_pump_ring", "a_south_pump_oil", "a_south_pump_ring"]  # which fit
    assert figures(f"[...{module}(['temp_c', 'dewp_c', 'wind_c']).values()]") == ["temp_c", "dewp_c", "wind_c"]
    parts = ("bearing_outer_ring", "bearing_inner_ring", "stator_winding_phase_u")
    names = [
        f"hall_{place}_{number}_{part}_celsius" for place in ("north", "south") for number in (1, 2) for part in parts
    ]
    names += ["outside_air_temperature_of_the_weather_station_on_the_roof", "an_unusuallylongwordofmanyletters"]
    for room in (15, 18, 22, 40):  # as in the service's pictures
        assert figures(f"[...{module}({names}, {room}).values()]") == [*shorten_names(names, room).values()]
    long = "the_same_words_in_both_of_two_long_names"
    assert len(set(figures(f"[...{module}(['{long}', '{long}_x']).values()]"))) == 2


def test_the_step_is_that_of_overlapping_reference_windows(server, open_tab):
    """The bundled model does not state the time from step to step, but its reference windows show an hour."""
    page = open_tab(server).show("forecast?model=nyc-weather&window=ref:100")
    expect(page.locator("#asked svg text.tick").last).to_have_text("now")
    expect(page.locator("#asked svg text.tick").first).to_have_text(re.compile("^\\d\\d:00$"))
