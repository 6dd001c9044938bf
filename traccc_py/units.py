"""Native units and physical constants: lengths in mm, energies in GeV, charges in e, angles in rad, time in ns.

A quantity with a unit is written as a product (``0.5 * GeV``, ``2.0 * T``). The magnetic field is kept in
GeV / (e mm), so that ``R = pT / (|q| B)`` holds without further factors.

References
----------
Particle masses: PDG 2024. Molar quantities: CODATA 2018.
"""

mm = 1.0
um = 1e-3
cm = 10.0
m = 1000.0

GeV = 1.0
MeV = 1e-3
keV = 1e-6
eV = 1e-9

ns = 1.0
ps = 1e-3
speed_of_light = 299.792458  #: [mm / ns]

rad = 1.0
mrad = 1e-3
degree = 0.017453292519943295

e = 1.0
T = 0.000299792458  #: one tesla in GeV / (e mm)

electron_mass = 0.51099895069e-3  #: [GeV]
muon_mass = 0.1056583755  #: [GeV]
pion_mass = 0.13957039  #: [GeV]

bethe_constant = 0.307075 * MeV * cm * cm  #: K = 4 pi N_A r_e^2 m_e c^2 [GeV mm^2 / mol]

highland_energy = 13.6 * MeV  #: scale of Highland's formula for multiple scattering (PDG 2024) [GeV]
highland_log = 0.038  #: factor of its logarithm [1]
