"""Per-layer error: each decoder layer of a model is given what the source's layer gets, and must give what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from quantizer.evaluation.held_out import Passage


def layer_errors(
    source: Any,
    models: Mapping[str, Any],
    passages: Sequence[Passage],
    advance: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """For each model and layer, the mean squared error relative to what the source's layer adds to its input.

    A layer passes its input on and adds to it. The error is compared with what it adds, so that a large input, which
    every model passes on without error, cannot hide a bad layer.
    """
    layers = source.base_model.layers
    errors = {name: torch.zeros(len(layers), dtype=torch.float64) for name in models}
    added = torch.zeros(len(layers), dtype=torch.float64)

    def watch(index: int) -> Callable[..., None]:
        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            added[index] += float((output - hidden).double().pow(2).sum())
            for name, model in models.items():
                other = model.base_model.layers[index](*args, **kwargs)
                errors[name][index] += float((other - output).double().pow(2).sum())

        return hook

    hooks = [layer.register_forward_hook(watch(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        for passage in passages:
            with torch.inference_mode():
                source.base_model(torch.tensor([passage.token_ids], device=source.device), use_cache=False)
            advance()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (sums / added.clamp(min=1e-30)).tolist() for name, sums in errors.items()}
