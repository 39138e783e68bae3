"""Plots as SVG or PNG, by matplotlib's objects and not by pyplot, which keeps global state."""

import io
from threading import Lock
from typing import Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from models.diffusion.schedule import NoiseSchedule

PlotFormat = Literal["svg", "png"]

_ONE_AT_A_TIME = Lock()  # matplotlib's fonts and settings are shared between threads


def plot_schedule(schedule: NoiseSchedule, format: PlotFormat) -> bytes:  # noqa: A002
    """Plot alpha and sigma over t, and the signal-to-noise ratio on a logarithmic scale."""
    config = schedule.config
    title = f"{config.name}, T = {config.num_train_timesteps}"
    if config.rescale_zero_terminal_snr:
        title += ", rescaled to zero terminal SNR"
    with _ONE_AT_A_TIME, rc_context({"svg.hashsalt": title, "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        figure.suptitle(title)
        levels, ratio = figure.subplots(1, 2)
        _plot_levels(levels, schedule)
        _plot_snr(ratio, schedule)
        return _render(figure, format)


def _plot_levels(axes: Axes, schedule: NoiseSchedule) -> None:
    axes.plot(schedule.alpha, label="alpha (signal)")
    axes.plot(schedule.sigma, label="sigma (noise)")
    if schedule.is_variance_preserving:
        axes.plot(schedule.alphas_cumprod, "--", linewidth=1, label="alphas_cumprod")
    else:
        axes.set_yscale("symlog", linthresh=1.0)
    axes.set_xlabel("t")
    axes.legend(frameon=False)


def _plot_snr(axes: Axes, schedule: NoiseSchedule) -> None:
    steps = range(1, schedule.num_train_timesteps + 1)  # infinite at t = 0
    axes.plot(steps, schedule.snr[1:], color="black")
    axes.set_yscale("log", nonpositive="clip")
    axes.axhline(1.0, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel("t")
    axes.set_ylabel("SNR = alpha² / sigma²")


def _render(figure: Figure, format: PlotFormat) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    if format == "svg":
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    else:
        FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
