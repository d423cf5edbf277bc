"""How commands show their options: in panels, by one table, and flags without a type."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

PANELS = {
    "Source": ("real", "synth", "columns", "skip_bad", "mix", "classes"),
    "Clips": (
        "per_class",
        "strategy",
        "strength",
        "alpha",
        "quality",
        "steps",
        "guidance",
        "prompt",
        "phase",
    ),
    "Generator": ("model", "base", "lora", "class_conditional", "trained_on"),
    "Which clips train and test": (
        "test_folds",
        "train_clips",
        "seeds",
        "seed",
        "protocol",
        "no_baseline",
    ),
    "Training": ("classifier", "augment", "use", "epochs", "learning_rate", "minutes"),
    "Filter": ("share_kept", "filter_model"),
    "Machine": ("device", "batch", "workers", "engine", "part"),
    "Comparison": ("baseline", "embedding"),
    "Output": ("out", "dry_run", "save", "csv_file", "split", "audit", "yes", "help"),
}
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}
FEW = 6  # options that one box holds as well


def without_types_of_flags(params: list[Any]) -> list[Any]:
    """The same parameters, flags without a type in the help."""
    for one in params:
        if getattr(one, "is_flag", False):
            one.metavar = ""
    return params


class Command(TyperCommand):
    """A command whose help shows many options in panels, and flags as flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = without_types_of_flags(super().get_params(ctx))
        options: list[Any] = [one for one in params if one.param_type_name == "option"]
        panel_of = {one.name: one.rich_help_panel or PANEL_OF.get(one.name) for one in options}
        for one in options:
            if len(options) > FEW:
                one.rich_help_panel = panel_of[one.name]
        order = [*PANELS, None]
        options.sort(key=lambda one: order.index(panel_of[one.name]))
        return [one for one in params if one.param_type_name != "option"] + options
