"""GUIDER objects: the host's guider for any expression of predictions, with a shorter way where conditioning is plain.

A run goes the host's own way up to `predict_noise`, so models are loaded, hooks registered and wrappers called as under
the host's guider.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import comfy.samplers
import node_helpers
from torch import Tensor

from ...samplers import Path
from ...samplers.guidance import Call, Chain, scale_at
from ...samplers.guidance.evaluation import evaluate, flat, guided_in, needed, varies
from ...samplers.guidance.expressions import Guided, Leaf, Prediction, guided, negatives, subexpressions
from ...samplers.guidance.informed import asks, told
from ...samplers.linear_combination import combine
from .cfg_patches import asked, guided_with_patches, not_applied, pair_of
from .evaluators import Evaluator, Others, check_alike
from .guided_run import Run
from .leaves import both_sides, in_host_order, model_of, resting_in, unlike_positive
from .models import path_of
from .plain_calls import CFG_PATCHES, Prepared, is_plain
from .progress import progress_of, seen_by, watched, witness_of
from .roles import NEGATIVE, POSITIVE, with_roles

Options = Mapping[str, Any]


class PredictionGuider(comfy.samplers.CFGGuider):
    """Evaluates an expression: all leaves of a call in one batch, and none whose factor is zero there.

    Where the expression is guidance, `cfg` is its scale, and who sets it (as the host's CFG Override does) changes it.
    """

    def __init__(self, model_patcher: Any):
        super().__init__(model_patcher)
        self.leaves: tuple[Leaf | None, ...] = ()
        self.keys: tuple[str, ...] = ()
        self.run = Run()

    def set_prediction(self, expression: Prediction) -> None:
        self.wired = expression
        self.cfg = expression.scale if isinstance(expression, Guided) else 1.0
        self.varies, self.asks = varies(expression), asks(expression)
        self.may_rest = any(rule.rests for part in guided_in(expression) for rule in part.rules)
        leaves = [part for part in subexpressions(expression) if isinstance(part, Leaf)]
        self.models = tuple(dict.fromkeys(model for leaf in leaves if (model := model_of(leaf)) is not None))
        for model in self.models:
            check_alike(self.model_patcher, model)
        unwanted = unlike_positive(leaves, negatives(expression))
        self.leaves = in_host_order(leaves, unwanted)
        self.apart = any(leaf.evaluator is not None for leaf in leaves)
        self.roles = [NEGATIVE if leaf in unwanted else POSITIVE for leaf in self.leaves]
        self.keys = ("positive", "negative", *(f"prediction {i + 1}" for i in range(2, len(self.leaves))))
        self.original_conds = {}
        conds = {key: leaf.conditioning for key, leaf in zip(self.keys, self.leaves, strict=True) if leaf is not None}
        # What is neither the host's positive nor its negative says which of them it is like.
        for key, role in list(zip(self.keys, self.roles, strict=True))[2:]:
            like = "negative" if role == NEGATIVE else "positive"
            conds[key] = node_helpers.conditioning_set_values(conds[key], {"prompt_type": like})
        self.inner_set_conds(conds)

    @property
    def expression(self) -> Prediction:
        if isinstance(self.wired, Guided) and self.wired.scale != self.cfg:
            self.wired = replace(self.wired, scale=self.cfg)
        return self.wired

    def outer_sample(self, *args: Any, **kwargs: Any) -> Tensor:
        if not self.models:
            return super().outer_sample(*args, **kwargs)
        others = self.run.others = Others(self.model_patcher, self.models)
        others.declared(self.conds)
        try:
            return super().outer_sample(*args, **kwargs)
        finally:
            others.cleaned()
            self.run = Run()

    def inner_sample(
        self,
        noise: Tensor,
        latent_image: Tensor,
        device: Any,
        sampler: Any,
        sigmas: Tensor,
        *args: Any,
        latent_shapes: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        packed = latent_shapes is not None and len(latent_shapes) > 1
        shapes = tuple(tuple(shape[1:]) for shape in latent_shapes) if packed else ()
        levels = tuple(sigmas.tolist()) if self.asks else ()
        self.run = Run(self.run.others, tuple(map(math.prod, shapes)), shapes, levels)
        if self.run.others is not None:
            conds = self.conds_of_others()
            self.run.others.prepared(
                conds, noise, latent_image, device, sigmas, args[0], args[3], latent_shapes=latent_shapes
            )
        given = (noise, latent_image, device, sampler, sigmas, *args)
        try:
            return super().inner_sample(*given, latent_shapes=latent_shapes, **kwargs)
        finally:
            if self.run.evaluated < self.run.possible:
                logging.info("Stepwise: %d of %d predictions evaluated", self.run.evaluated, self.run.possible)
            self.run = Run()

    def options_of_others(self) -> list[Options]:
        """The options of the models beside the guider's own, within a run."""
        return [] if self.run.others is None else [each.options for each in self.run.others.ready.values()]

    def conds_of_others(self) -> dict[Any, dict[str, Any]]:
        """The conditionings of the other models, taken from those that the host prepares for the guider's own."""
        found: dict[Any, dict[str, Any]] = {model: {} for model in self.models}
        for key, leaf in zip(self.keys, self.leaves, strict=True):
            if leaf is not None and (model := model_of(leaf)) is not None:
                found[model][key] = self.conds.pop(key)
        return found

    def conds_of_run(self) -> list[Any]:
        """The conditionings of all leaves, each as the model that evaluates it wants them."""
        if self.run.others is None:
            return [self.conds.get(key) for key in self.keys]
        known = dict(self.conds)
        for other in self.run.others.ready.values():
            known |= other.conds
        return [known.get(key) for key in self.keys]

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: Options | None = None, seed: int | None = None
    ) -> Tensor:
        options, expression = model_options or {}, self.expression
        if self.asks:
            expression = self.told(expression, self.step_of(timestep, options))
        if not self.run.warned:
            self.warn(expression, options)
        conds = self.conds_of_run()
        both = bool(options.get("disable_cfg1_optimization"))
        plain = not both and is_plain([cond for cond in conds if cond is not None], options)
        if plain and self.run.fixed is not None and self.run.fixed[0] is expression:
            return self.summed(self.run.fixed[1], conds, plain, x, timestep, options)
        call = self.call(x, timestep, options)
        if not plain and not self.apart and expression is pair_of(expression) and expression.linear:
            return self.hosts_own(expression, call, conds, timestep, options, seed)
        known: dict[Prediction, Tensor] = {}
        progress = progress_of(options)
        if self.may_rest and not (progress is not None and progress.upwards):
            # Under a sampler of ours the beginning of a step decides for all its calls.
            where = (call.sigma, None) if progress is None else (progress.level, progress.step)
            known = dict.fromkeys(resting_in(expression, *where, call.path), x)
        pair = pair_of(expression) if both or any(map(options.get, CFG_PATCHES)) else None
        if pair is not None and pair not in known:
            return self.with_patches(expression, pair, call, conds, timestep, options)
        atoms = flat(expression, call.sigma, call.path, known)
        if not both and atoms and all(isinstance(atom, Leaf) for atom in atoms):
            factors = {self.leaves.index(leaf): factor for leaf, factor in atoms.items()}
            if not self.varies:
                self.run.fixed = (expression, factors)
            return self.summed(factors, conds, plain, x, timestep, options)
        wanted = dict.fromkeys(part for part in needed(expression, call.sigma, call.path, known) if part not in known)
        if both:
            wanted |= dict.fromkeys(side for side in both_sides(expression, wanted))
        indices = self.indices(wanted)
        found = self.predictions(indices, conds, plain, x, timestep, options) if indices else {}
        return evaluate(expression, call, {**known, **{self.leaves[index]: found[index] for index in indices}})

    def rests(self, level: float, step: int, path: Path) -> bool:
        """Whether x stays as it is, and no model is called, in the step of a run that begins at this noise level."""
        expression = self.told(self.expression, step) if self.asks else self.expression
        still = set(resting_in(expression, level, step, path))
        return bool(still) and still.issuperset(needed(expression, level, path, still))

    def step_of(self, timestep: Tensor, options: Options) -> int | None:
        """The number of the step that makes this call; under a foreign sampler, that of the level next above it."""
        progress = progress_of(options)
        if progress is not None:
            return progress.step
        sigma = float(timestep[0])
        above = [i for i, level in enumerate(self.run.levels[:-1]) if level >= sigma * (1.0 - 1e-6)]
        return max(above, default=0)

    def told(self, expression: Prediction, step: int | None) -> Prediction:
        """The expression with rules that know the step, and whether there are components."""
        known = self.run.told
        if known is None or known[0] is not expression or known[1] != step:
            facts = {} if self.run.components else {"component": 0}
            if step is not None and self.run.levels:
                facts |= {"step": step, "steps": len(self.run.levels) - 1}
            known = self.run.told = (expression, step, told(expression, **facts))
        return known[2]

    def summed(
        self,
        factors: Mapping[int, float],
        conds: Sequence[Any],
        plain: bool,
        x: Tensor,
        timestep: Tensor,
        options: Options,
    ) -> Tensor:
        """The value of an expression that is a sum of leaves and no more, from their indices and factors."""
        found = self.predictions(tuple(sorted(factors)), conds, plain, x, timestep, options)
        return combine([(found[index], factor) for index, factor in factors.items()])

    def indices(self, leaves: Iterable[Prediction]) -> tuple[int, ...]:
        return tuple(sorted({self.leaves.index(leaf) for leaf in leaves}))

    def call(self, x: Tensor, timestep: Tensor, options: Options) -> Call:
        """The model call as guidance sees it. Only under a foreign sampler is its noise level read from the device."""
        path = path_of(self.inner_model.model_sampling)
        if not self.varies:
            return Call(x, math.nan, path, components=self.run.components)
        progress, parts = progress_of(options), {"components": self.run.components, "shapes": self.run.shapes}
        if progress is not None:
            return Call(x, progress.sigma, path, advances=progress.first, memory=progress.memory, **parts)
        sigma, descent = float(timestep[0]), self.run.descent
        return Call(x, sigma, path, advances=descent.advances(sigma), memory=descent.memory, **parts)

    def hosts_own(
        self, pair: Guided, call: Call, conds: Sequence[Any], timestep: Tensor, options: Options, seed: int | None
    ) -> Tensor:
        """Classifier-free guidance by the host itself, with the scale of this noise level."""
        scale = scale_at(pair.rules, pair.scale, call.sigma, call.path)
        alone = math.isclose(scale, 1.0) and not options.get("disable_cfg1_optimization")
        self.note(1 if alone else 2)
        positive, negative = (conds[self.leaves.index(leaf)] for leaf in (pair.positive, pair.negative))
        if witness := witness_of(options):
            options = watched(options, seen_by(witness), evaluate_uncond=False)
        return comfy.samplers.sampling_function(
            self.inner_model, call.x, timestep, negative, positive, scale, model_options=options, seed=seed
        )

    def with_patches(
        self, expression: Prediction, pair: Guided, call: Call, conds: Sequence[Any], timestep: Tensor, options: Options
    ) -> Tensor:
        """The expression, with the host's CFG patches acting on one guidance in it."""
        wanted = dict.fromkeys(needed(expression, call.sigma, call.path, {pair}))
        named = {"cond": pair.positive, "uncond": pair.negative, **pair.others}
        names = asked(pair, call, options) if pair in wanted else ()
        named = {name: leaf for name, leaf in named.items() if name in names}
        wanted.pop(pair, None)
        indices = self.indices((*wanted, *named.values()))
        found = self.predictions(indices, conds, False, call.x, timestep, options)
        predictions: dict[Prediction, Tensor] = {self.leaves[index]: found[index] for index in indices}
        predictions[pair] = guided_with_patches(
            pair,
            replace(call, scale=pair.scale, key=guided_in(expression)[pair]),
            {name: predictions[leaf] for name, leaf in named.items()},
            (conds[self.leaves.index(pair.positive)], conds[self.leaves.index(pair.negative)]),
            self.inner_model,
            timestep,
            options,
        )
        return evaluate(expression, call, predictions)

    def predictions(
        self,
        indices: tuple[int, ...],
        conds: Sequence[Any],
        plain: bool,
        x: Tensor,
        timestep: Tensor,
        options: Options,
    ) -> Mapping[int, Tensor]:
        """The denoised predictions of these leaves, of one model call if the host's rules for batches allow it."""
        self.note(len(indices))
        if self.apart:
            found = self.of_evaluators(indices, conds, x, timestep, options)
        else:
            found = self.of_model(None, self.inner_model, indices, conds, plain, x, timestep, options)
        if witness := witness_of(options):
            for index in indices:
                witness(self.keys[index], found[index])
        return found

    def of_evaluators(
        self, indices: tuple[int, ...], conds: Sequence[Any], x: Tensor, timestep: Tensor, options: Options
    ) -> dict[int, Tensor]:
        """One batch for the leaves of each model with each perturbation, in the order of the leaves."""
        groups: dict[Any, list[int]] = {}
        for index in indices:
            groups.setdefault(self.leaves[index].evaluator, []).append(index)
        found: dict[int, Tensor] = {}
        for evaluator, group in groups.items():
            evaluator = evaluator or Evaluator()
            held, model, given = None, self.inner_model, options
            if evaluator.model is not None:
                other = self.run.others.ready[evaluator.model]
                held, model, given = evaluator.model, other.inner, other.options
            if evaluator.perturbation is not None:
                given = evaluator.perturbation.options(given)
            plain = is_plain([conds[index] for index in group], given)
            made = self.of_model(held, model, tuple(group), conds, plain, x, timestep, given)
            found |= {index: made[index] for index in group}
        return found

    def of_model(
        self,
        held: Any,
        model: Any,
        indices: tuple[int, ...],
        conds: Sequence[Any],
        plain: bool,
        x: Tensor,
        timestep: Tensor,
        options: Options,
    ) -> Mapping[int, Tensor]:
        """The predictions of one model, the guider's own where `held` is None."""
        if plain:
            known = self.run.prepared.get(held)
            if known is None or not known.fits(conds, x):
                known = self.run.prepared[held] = Prepared(model, conds, x, self.roles)
            return known(x, timestep, options, indices)
        wanted = [cond if index in indices else None for index, cond in enumerate(conds)]
        return dict(enumerate(by_host(model, wanted, x, timestep, with_roles(options, self.roles))))

    def note(self, evaluated: int) -> None:
        self.run.evaluated += evaluated
        self.run.possible += len(self.leaves) - self.leaves.count(None)

    def warn(self, expression: Prediction, options: Options) -> None:
        """Names, once a run, what was asked for and has no effect."""
        self.run.warned = True
        for patch in not_applied(expression, options):
            logging.warning("Stepwise: not applied: %s", patch)
        if not isinstance(expression, Guided) and self.cfg != 1.0:
            logging.warning(
                "Stepwise: a guidance scale was set to %g, and the expression has none of its own", self.cfg
            )


class GuidedGuider(PredictionGuider):
    """Classifier-free guidance of two conditionings with rules: made and set like the host's CFGGuider."""

    rules: Chain = ()

    def set_conds(self, positive: Any, negative: Any) -> None:
        self.set_prediction(guided(Leaf(positive), Leaf(negative), scale=self.cfg, rules=self.rules))

    def set_rules(self, rules: Chain) -> None:
        self.rules = tuple(rules)


def by_host(model: Any, conds: list[Any], x: Tensor, timestep: Tensor, options: Options) -> Sequence[Tensor]:
    if "sampler_calc_cond_batch_function" in options:
        args = {"conds": conds, "input": x, "sigma": timestep, "model": model, "model_options": options}
        return options["sampler_calc_cond_batch_function"](args)
    return comfy.samplers.calc_cond_batch(model, conds, x, timestep, options)
