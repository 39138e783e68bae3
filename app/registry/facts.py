"""A model's facts in words: the rows of `diffusion models show` and of a download's README."""

from client.answers import ModelAnswer

MANY_CLASSES = 20
_BEGINNINGS = {
    "trained": "trained",
    "fine_tuned": "fine-tuned",
    "distilled": "distilled",
    "uploaded": "uploaded",
}


def readme_text(model: ModelAnswer) -> str:
    """Return a README in Markdown. The license is said once, in its front matter."""
    details = model.details
    height, width = details["image_size"]
    names = details["class_names"]
    facts = {
        "images": f"{width} x {height}, {'greyscale' if details['channels'] == 1 else 'RGB'}",
        "classes": f"{len(names)}" if len(names) > MANY_CLASSES else ", ".join(names) or "none",
        "predicts": details["prediction_type"],
        "schedule": details["schedule"]["name"],
        "origin": origin(model),
        "network": network(model),
        **scores(model),
        "sha256": model.digest,
    }
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items())
    about = "A diffusion model, as a folder in diffusers' format."
    return f"# {model.name}\n\n{about}\n\n| | |\n|---|---|\n{rows}\n"


def origin(model: ModelAnswer) -> str:
    parts = [_BEGINNINGS[model.origin.kind]]
    if base := model.origin.base_model:
        parts.append(f"from {base} ({(model.origin.base_digest or '')[:12]})")
    if model.dataset:
        parts.append(f"on {model.dataset}")
        if model.dataset_version:
            parts.append(f"version {model.dataset_version}")
        if digest := model.dataset_digest:
            parts.append(f"({digest[:12]})")
    if model.job_id:
        parts.append(f"by {model.job_id}")
    if steps := model.details.get("steps"):
        parts.append(f"in {steps:,} steps")
    return " ".join(parts)


def network(model: ModelAnswer) -> str:
    """Return its size: parameters, their bytes, and the operations of one call for one image."""
    size, parts = model.network, []
    if size.num_parameters is not None and size.float32_bytes is not None:
        parts.append(f"{size.num_parameters:,} parameters")
        parts.append(f"{size.float32_bytes / 1e6:,.1f} MB in float32")
    if size.flops is not None:
        parts.append(f"{size.flops / 1e6:,.1f} MFLOPs for an image in one call")
    return ", ".join(parts) or "unknown"


def precisions(model: ModelAnswer) -> str:
    """Return the precisions that the service can compute it in, and the one that auto takes."""
    if model.precisions is None:
        return "not known yet"
    own = [name for name, used in model.precisions.items() if name == used]
    return f"{', '.join(own)}; auto is {model.precisions['auto']}"


def scores(model: ModelAnswer) -> dict[str, str]:
    """Return the Frechet distance in each precision that was measured."""
    return {
        f"Frechet distance in {precision}": f"{score['made']['frechet']:.4g} "
        f"(real images {score['real']['frechet']:.4g}; {score['made']['num_images']} images, "
        f"features: {score['features']})"
        for precision, score in model.details.get("scores", {}).items()
    }


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
