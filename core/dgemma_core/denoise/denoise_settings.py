"""A request's denoising settings, with the checkpoint's defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from dgemma_core.api.sampling_params import SamplingParams

MILDEST = 0.8
"""``t_max`` of the published schedule: lower values of ``temperature`` do not change it."""


@dataclass(frozen=True)
class DenoiseSettings:
    """Sampling parameters of one canvas, all of them set. ``SamplingParams`` describes the fields."""

    canvas_length: int
    max_denoising_steps: int
    entropy_bound: float
    t_min: float
    t_max: float
    stability_threshold: int
    confidence_threshold: float
    stop_at_eos: bool

    def with_params(self, params: SamplingParams) -> DenoiseSettings:
        """These settings as defaults, with a request's own values in their place.

        Raises:
            ValueError: a value that does not go together with the defaults.
        """
        given = {field.name: getattr(params, field.name) for field in fields(self)}
        if params.temperature is not None and params.temperature > MILDEST:
            # A colder schedule does not give likelier answers: the model becomes sure of its first guess, and the
            # canvas stops too early. So lower temperatures keep the checkpoint's schedule.
            given |= {"t_max": float(params.temperature), "t_min": params.temperature / 2}
        settings = replace(self, **{name: value for name, value in given.items() if value is not None})
        if settings.canvas_length > self.canvas_length:
            raise ValueError(
                f"canvas_length={settings.canvas_length}: this checkpoint was trained on canvases of at most "
                f"{self.canvas_length}"
            )
        if settings.t_max < settings.t_min:
            raise ValueError(
                f"t_max={settings.t_max} is below t_min={settings.t_min} (the checkpoint's default fills in what is "
                "not given); set both"
            )
        if settings.t_min <= 0:
            raise ValueError(
                f"t_min={settings.t_min}, the checkpoint's default: logits are divided by it; set e.g. 0.01"
            )
        return settings
