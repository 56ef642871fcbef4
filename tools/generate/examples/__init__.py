"""The example workflows, each described once."""

from . import compare, first, guidance, schedules, solvers, states

WORKFLOWS = (
    first.first_picture,
    first.side_by_side,
    first.on_a_checkpoint,
    states.pause_and_resume,
    states.fork_into_guidances,
    states.hand_over,
    guidance.curve_and_interval,
    guidance.cfg_by_hand,
    guidance.two_prompts,
    first.one_node,
    first.image_to_image,
    first.inpaint,
    states.edit_a_picture,
    states.load_tomorrow,
    guidance.drawn,
    guidance.without_burning,
    guidance.more_prompts,
    guidance.newer_rules,
    guidance.worse_versions,
    guidance.over_the_run,
    guidance.apg_by_hand,
    schedules.flow_model,
    schedules.brownian,
    schedules.compare_schedules,
    schedules.edit_schedule,
    solvers.every_solver,
    solvers.every_sampler,
    compare.compare_samplers,
)
