from xml.etree import ElementTree

from pictures import SVG

from kanmodel.report.finding import Band
from kanmodel.show.report import draw_band


def test_the_legend_of_a_narrow_band_stays_in_the_picture():
    """Of three pictures beside each other the line below the band has room."""
    panel = Band("Forecasts", [1.0, 2.0], [0.0, 1.0], [2.0, 3.0], [1.0, 2.0], "1 Jan", "2 Jan", "K")
    picture = ElementTree.fromstring(draw_band(panel, "light", n_beside=3))
    legend = max((text.text for text in picture.iter(f"{SVG}text")), key=len)
    assert len(legend) * 5.4 < float(picture.get("width"))  # as measured in a browser
