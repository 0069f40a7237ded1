"""The sections of a report that belong to no analysis: account, linked pictures, regions, training, provenance."""

from spaf_analysis.report.sections.account import AccountSection
from spaf_analysis.report.sections.linked import LinkedSection
from spaf_analysis.report.sections.provenance import ProvenanceSection
from spaf_analysis.report.sections.regions import RegionsSection
from spaf_analysis.report.sections.training import TrainingSection

__all__ = ["AccountSection", "LinkedSection", "ProvenanceSection", "RegionsSection", "TrainingSection"]
