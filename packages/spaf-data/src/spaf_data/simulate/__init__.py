"""Simulation of bundles with planted truth, for tests, tutorials and calibration."""

from spaf_data.simulate.bundle import simulate_bundle
from spaf_data.simulate.recipe import Simulation

__all__ = ["Simulation", "simulate_bundle"]
