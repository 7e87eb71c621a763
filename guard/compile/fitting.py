"""Everything that can be fitted, put together for one engine."""

from __future__ import annotations

import asyncio

from guard.artifacts import Artifact
from guard.compile.appraisal import AutoFit
from guard.compile.concept import ConceptFit
from guard.compile.eco import EcoFit
from guard.compile.features import FeaturesFit
from guard.compile.grounds import Grounds, survey
from guard.compile.jobs import Compiler, Fit, Progress
from guard.compile.lunar import LunarFit
from guard.compile.rocr import RocrFit
from guard.compile.skills import SkillFit
from guard.features import SKILL
from guard.interventions import Means
from guard.policy import AUTO
from guard.probe import Probe
from guard.types import ForgetTarget


def build_compiler(means: Means) -> Compiler | None:
    """The compiler of an engine; None where the engine lacks Lethe's worker part."""
    if means.artifacts is None or means.probe is None:
        return None
    ground = _Ground(means.probe)
    fits: dict[str, Fit] = {
        "eco": ground.with_grounds(EcoFit(means.probe)),
        "lunar": ground.with_grounds(LunarFit(means.probe)),
        "rocr": ground.with_grounds(RocrFit(means.probe)),
        "concept": ground.with_grounds(ConceptFit(means.probe)),
    }
    if means.autoencoder is not None:
        fits["features"] = ground.with_grounds(FeaturesFit(means.probe, means.autoencoder, means.scores))
    fits[SKILL] = SkillFit(means.probe).fit
    fits[AUTO] = ground.with_grounds(AutoFit(means, means.probe))
    return Compiler(means.artifacts, fits, means.artifacts.queue())


class _Ground:
    """Surveys the model when the first target is fitted, and keeps what it found."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._grounds: Grounds | None = None
        self._surveying = asyncio.Lock()

    def with_grounds(self, fitter: AutoFit | ConceptFit | EcoFit | FeaturesFit | LunarFit | RocrFit) -> Fit:
        async def fit(target: ForgetTarget, progress: Progress) -> Artifact:
            async with self._surveying:
                if self._grounds is None:
                    progress("surveying the model, once", 0.0)
                    self._grounds = await survey(self._probe, [target.spec.name, *target.spec.aliases])
            return await fitter.fit(target, self._grounds, progress)

        return fit
