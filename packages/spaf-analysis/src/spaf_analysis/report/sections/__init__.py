"""The sections of a report that belong to no analysis: what went in, what was held out, training, provenance."""

from spaf_analysis.report.sections.account import AccountSection
from spaf_analysis.report.sections.provenance import ProvenanceSection
from spaf_analysis.report.sections.regions import RegionsSection
from spaf_analysis.report.sections.training import TrainingSection

__all__ = ["AccountSection", "ProvenanceSection", "RegionsSection", "TrainingSection"]
