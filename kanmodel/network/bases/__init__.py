"""Bases: the families of functions on edges, one module each.

To add a basis, write a module with a subclass of `basis.Basis` and add an entry to the table below; nothing else
depends on the kind of basis.
"""

from kanmodel.network.bases.basis import Basis, EdgeFunctions, Tensors
from kanmodel.network.bases.bspline import BSpline
from kanmodel.network.bases.chebyshev import Chebyshev
from kanmodel.network.bases.fourier import Fourier
from kanmodel.network.bases.line import Line
from kanmodel.network.bases.radial import Gaussian, Sech2
from kanmodel.network.bases.wavelet import MexicanHat

BASES: dict[str, type[Basis]] = {
    basis.kind: basis for basis in (BSpline, Gaussian, Sech2, Chebyshev, Fourier, MexicanHat, Line)
}

__all__ = [
    "BASES",
    "BSpline",
    "Basis",
    "Chebyshev",
    "EdgeFunctions",
    "Fourier",
    "Gaussian",
    "Line",
    "MexicanHat",
    "Sech2",
    "Tensors",
]
