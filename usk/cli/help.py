"""The help of commands: options in panels, and flags without a type."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

PANELS = {
    "Source": ("real", "synth", "columns", "skip_bad", "mix", "classes"),
    "Clips": (
        "per_class", "strategy", "strength", "alpha", "quality", "steps", "guidance", "prompt", "phase", "filter",
    ),
    "Generator": ("model", "base", "lora", "class_conditional", "trained_on"),
    "Which clips train and test": ("test_folds", "train_clips", "seeds", "seed", "protocol", "no_baseline"),
    "Training": ("classifier", "augment", "use", "epochs", "learning_rate", "minutes"),
    "Machine": ("device", "batch", "workers", "engine", "part"),
    "Comparison": ("baseline", "embedding"),
    "Output": ("out", "dry_run", "save", "csv_file", "split", "audit", "yes", "help"),
}  # fmt: skip
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}
MAX_IN_ONE_PANEL = 6  # options of a command without panels


def hide_flag_types(params: list[Any]) -> list[Any]:
    """Remove the type of flags from the help. Return the same parameters."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class Command(TyperCommand):
    """A command whose help groups options into panels, if there are many."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = hide_flag_types(super().get_params(ctx))
        options: list[Any] = [param for param in params if param.param_type_name == "option"]
        panels = {option.name: option.rich_help_panel or PANEL_OF.get(option.name) for option in options}
        if len(options) > MAX_IN_ONE_PANEL:
            for option in options:
                option.rich_help_panel = panels[option.name]
        order = [*PANELS, None]
        options.sort(key=lambda option: order.index(panels[option.name]))
        return [param for param in params if param.param_type_name != "option"] + options
