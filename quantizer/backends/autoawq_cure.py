"""AutoAWQ's quantizer, cured.

What each override repairs (docs/quantizer.md has the figures):

1. ``_compute_best_scale`` restored weights from ``.cpu()`` tensors. On a CPU these *are* the weights, so every trial
   scaled the backup as well and the checkpoint spoke garbage. Here they are restored from clones.
2. Calibration text went through a filter that dropped, in silence, every sample longer than a block. ``init_quant``
   takes blocks of exact length, and gives every layer the attention mask that the model itself gives it: AutoAWQ gave
   all of them that of layer 0, which is another one in models with sliding windows.
3. Padding counted as text. Here its features are zero, so that it adds nothing to any mean, Gram matrix or loss.
4. ``_compute_best_clip`` multiplied element by element; the same objective is d^T (X^T X / n) d, a matrix product.
   It is cheap enough to use every token, where AutoAWQ took 512, and for q and k too, which AutoAWQ left out.
5. The search could end worse than without scales, since its grid does not hold "no scales". Here it does.
6. A norm divided by its scales was rounded to the checkpoint's 16 bits, and nothing took up the difference. Here the
   scales are those that the rounded norm really has.
7. Packing rounded twice in float16, column by column. ``awq_format`` rounds once, for the scale that is stored, and
   ``feedback`` lets the weights not rounded yet make up for those that are.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from quantizer import awq_format
from quantizer.backends.feedback import round_with_feedback
from quantizer.calibration.packing import Blocks

with warnings.catch_warnings(record=True):
    # AutoAWQ says goodbye at every import, past any filter, and what it imports warns too; docs/adr/0006 is our answer.
    warnings.simplefilter("default")
    from awq.models.auto import AWQ_CAUSAL_LM_MODEL_MAP
    from awq.quantize.quantizer import AwqQuantizer
    from awq.quantize.scale import apply_scale
    from awq.utils.module import get_named_linears, get_op_by_name

_GRID = 20  # trials of the scale search, and twice those of the clip search, as in AutoAWQ
_SMALLEST_CLIP = 0.5  # of a group's largest weight
_FORWARD_BLOCKS = 8  # blocks in one forward pass: bounds the memory, and suits the caches of a CPU
_SEARCH_BLOCKS = 8  # blocks on which the trials of a non-linear module are compared; statistics use all of them

Tensors = dict[str, torch.Tensor]


class CuredAwqQuantizer(AwqQuantizer):  # type: ignore[misc]  # awq has no types
    """Quantizes one decoder layer at a time. ``inps`` are the hidden states that enter layer 0."""

    def __init__(self, model: Any, *, group_size: int, blocks: Blocks, norm_dtype: torch.dtype) -> None:
        model_type = model.config.model_type
        # AutoAWQ's knowledge of the architecture: which layers share an input, and so a set of scales.
        architecture = AWQ_CAUSAL_LM_MODEL_MAP[model_type](
            model, model_type, is_quantized=False, config=model.config, quant_config=None, processor=None
        )
        self._blocks = blocks
        self._norm_dtype = norm_dtype
        self._call_kwargs: list[dict[str, Any]] = []
        super().__init__(
            architecture,
            model,
            tokenizer=None,
            w_bit=4,
            group_size=group_size,
            zero_point=True,
            version="gemm",
            calib_data=None,
            split=None,
            text_column=None,
            duo_scaling=True,
        )

    def init_quant(self, n_samples: int = 0, max_seq_len: int = 0) -> tuple[Any, dict[str, Any], torch.Tensor]:  # noqa: ARG002
        """Cure 2: exactly the blocks given, and the arguments with which the model calls each of its layers."""
        layers = self.awq_model.get_model_layers(self.model)
        device = self.model.device
        self._mask = torch.tensor(self._blocks.mask, device=device)
        hidden, self._call_kwargs = record_layer_calls(
            self.model.base_model,
            layers,
            token_ids=torch.tensor(self._blocks.token_ids, device=device),
            positions=torch.tensor(self._blocks.positions, device=device),
        )
        return layers, {}, hidden

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def quantize_layer(self, index: int, inputs: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        """The layer's tensors as they stand in the checkpoint, named within the layer, and what enters the next layer.

        The next layer is calibrated on what the unquantized model gives it, as AWQ does. The model stays as it is.
        """
        layer = copy.deepcopy(self.modules[index])
        self.module_kwargs = self._call_kwargs[index]
        self.inps = inputs
        linears = get_named_linears(layer)
        features = self._get_input_feat(layer, linears)
        groups = self.awq_model.get_layers_for_scaling(layer, features, self.module_kwargs)
        scales = [self._exact(layer, *self._search_best_scale(layer, **group)) for group in groups]
        apply_scale(layer, scales, input_feat_dict=features)
        return self._to_tensors(layer, self._round(layer, _by_input(linears, scales), features)), self.inps

    def _get_input_feat(self, layer: nn.Module, named_linears: Mapping[str, nn.Linear]) -> dict[str, torch.Tensor]:
        """Cure 3. The product is also a tensor of its own for each linear, so that scaling one scales no other."""
        features: dict[str, torch.Tensor] = super()._get_input_feat(layer, named_linears)
        mask = self._mask.unsqueeze(-1)
        return {name: feature * mask.to(feature) for name, feature in features.items()}

    def _module_forward(self, x: torch.Tensor, module: nn.Module, module_kwargs: Mapping[str, Any]) -> torch.Tensor:
        """A few blocks at a time, each with its own rows of mask and rotary embedding."""
        outputs = []
        for start in range(0, len(x), _FORWARD_BLOCKS):
            rows = slice(start, start + _FORWARD_BLOCKS)
            output = module(x[rows], **_rows_of(module_kwargs, rows, blocks=len(x)))
            outputs.append(output[0] if isinstance(output, tuple) else output)
        return torch.cat(outputs)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _compute_best_scale(  # noqa: PLR0913, PLR0917 - the signature is AutoAWQ's
        self,
        x: torch.Tensor,
        w_mean: torch.Tensor,
        x_mean: torch.Tensor,
        module2inspect: nn.Module,
        linears2scale: Sequence[nn.Linear],
        fp16_output: torch.Tensor,
        kwargs: Mapping[str, Any],
    ) -> torch.Tensor:
        """Cures 1 and 5: the scales with the smallest error at the output of ``module2inspect``."""
        originals = [linear.weight.detach().clone() for linear in linears2scale]
        if list(linears2scale) == [module2inspect]:
            loss = _linear_loss(x, linears2scale[0], originals[0])
        else:
            loss = self._output_loss(x, module2inspect, fp16_output, kwargs)
        best, smallest = torch.ones_like(x_mean), float("inf")
        for scales in _candidate_scales(w_mean.view(-1), x_mean.view(-1)):
            for linear, original in zip(linears2scale, originals, strict=True):
                quantized = awq_format.round_to_nearest(original * scales, self.group_size).dequantize()
                linear.weight.data = (quantized / scales).to(original)
            error = loss()
            if error < smallest:
                best, smallest = scales, error
        for linear, original in zip(linears2scale, originals, strict=True):
            linear.weight.data = original
        return best.detach()

    def _output_loss(
        self, x: torch.Tensor, module: nn.Module, expected: torch.Tensor, kwargs: Mapping[str, Any]
    ) -> Callable[[], float]:
        """The squared error at the output of a whole module, on an even choice of the blocks."""
        chosen = slice(None, None, max(1, len(x) // _SEARCH_BLOCKS))
        inputs, outputs, arguments = x[chosen], expected[chosen], _rows_of(kwargs, chosen, blocks=len(x))
        return lambda: float((self._module_forward(inputs, module, arguments) - outputs).float().pow(2).mean())

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _compute_best_clip(self, w: torch.Tensor, input_feat: torch.Tensor) -> torch.Tensor:
        """Cure 4: for each group of weights the limit with the smallest error, [out, in / group, 1]."""
        size = self.group_size
        tokens = input_feat.to(w.device).reshape(-1, w.shape[1] // size, size).float()
        gram = torch.einsum("ngi,ngj->gij", tokens, tokens)
        grouped = w.detach().float().view(w.shape[0], -1, size)
        largest = grouped.abs().amax(dim=-1, keepdim=True)
        best, smallest = largest, torch.full_like(largest, float("inf"))
        for step in range(int(_SMALLEST_CLIP * _GRID)):
            limit = largest * (1 - step / _GRID)
            clipped = torch.clamp(grouped, -limit, limit)
            difference = awq_format.round_to_nearest(clipped.view_as(w), size).dequantize().view_as(grouped) - grouped
            projected = torch.bmm(difference.transpose(0, 1), gram).transpose(0, 1)
            error = (projected * difference).sum(dim=-1, keepdim=True)
            is_better = error < smallest
            smallest = torch.where(is_better, error, smallest)
            best = torch.where(is_better, limit, best)
        return best.to(w)

    def _exact(
        self, layer: nn.Module, norm_name: str, linear_names: tuple[str, ...], scales: torch.Tensor
    ) -> tuple[str, tuple[str, ...], torch.Tensor]:
        """Cure 6. A linear layer in front is quantized itself, so its scales need no rounding."""
        norm = get_op_by_name(layer, norm_name)
        if isinstance(norm, nn.Linear):
            return norm_name, linear_names, scales
        offset = 1.0 if "gemma" in type(norm).__name__.lower() else 0.0  # Gemma's norms multiply by 1 + weight
        gain = norm.weight.detach().float() + offset
        rounded = (gain / scales - offset).to(self._norm_dtype).float() + offset
        return norm_name, linear_names, torch.where(rounded.abs() > 0, gain / rounded, scales).to(scales)

    def _round(
        self, layer: nn.Module, by_input: Iterable[Sequence[str]], features: Mapping[str, torch.Tensor]
    ) -> dict[str, awq_format.Groups]:
        """Cure 7, for all linears at once that have the same input; by name."""
        rounded: dict[str, awq_format.Groups] = {}
        for names in by_input:
            weights = [get_op_by_name(layer, name).weight.detach().to(self._mask.device) for name in names]
            groups = self._quantize(torch.cat(weights), features[names[0]].to(self._mask.device))
            rounded |= zip(names, groups.split([len(weight) for weight in weights]), strict=True)
        return rounded

    def _quantize(self, weight: torch.Tensor, inputs: torch.Tensor) -> awq_format.Groups:
        """AWQ's clips decide the range of each group; integers in it are then chosen with feedback."""
        limits = self._compute_best_clip(weight, inputs)
        grouped = weight.view(*limits.shape[:2], -1)
        clipped = torch.clamp(grouped, -limits, limits).view_as(weight)
        groups = awq_format.round_to_nearest(clipped, self.group_size)
        tokens = inputs.flatten(0, -2).float()
        return round_with_feedback(weight, groups, tokens.t() @ tokens)

    def _to_tensors(self, layer: nn.Module, rounded: Mapping[str, awq_format.Groups]) -> Tensors:
        """The quantized linears packed, everything else in the checkpoint's own number format."""
        tensors: Tensors = {}
        for name, tensor in layer.state_dict().items():
            groups = rounded.get(name.removesuffix(".weight"))
            if groups:
                owner = name.removesuffix("weight")
                tensors |= {f"{owner}{part}": value for part, value in awq_format.pack(groups).items()}
            else:
                tensors[name] = tensor.to(self._norm_dtype)
        return {name: tensor.cpu().contiguous() for name, tensor in sorted(tensors.items())}


def record_layer_calls(
    decoder: nn.Module, layers: Sequence[nn.Module], *, token_ids: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """The hidden states that enter the first layer, and the keyword arguments with which each layer is called.

    The layers pass their input on while this runs, so it costs no more than the embedding.
    """
    entering: list[torch.Tensor] = []
    calls: list[dict[str, Any]] = []

    def record(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        entering.append(hidden_states)
        calls.append(kwargs)
        return hidden_states

    forwards = [layer.forward for layer in layers]
    try:
        for layer in layers:
            layer.forward = record
        with torch.no_grad():
            decoder(input_ids=token_ids, position_ids=positions, use_cache=False)
    finally:
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward
    return entering[0], calls


def _by_input(
    linears: Iterable[str], scales: Iterable[tuple[str, tuple[str, ...], torch.Tensor]]
) -> list[tuple[str, ...]]:
    """The names of linear layers in the order of computation, those together that have one input, and so one scale."""
    together = {name: names for _, names, _ in scales for name in names}
    return list(dict.fromkeys(together.get(name, (name,)) for name in linears))


def _candidate_scales(w_mean: torch.Tensor, x_mean: torch.Tensor) -> Iterator[torch.Tensor]:
    """No scales; AWQ's grid by inputs and weights; and its grid by inputs alone, which AutoAWQ has as an option."""
    yield torch.ones_like(x_mean)
    for step in range(0, _GRID, 2):
        ratio = step / _GRID
        weighted = x_mean.pow(ratio) / (w_mean.pow(1 - ratio) + 1e-4)
        for scales in (weighted, x_mean.pow(ratio + 1 / _GRID)):
            centred = scales.clamp(min=1e-4)
            centred = centred / (centred.max() * centred.min()).sqrt()
            yield torch.where(centred.isfinite(), centred, torch.ones_like(centred))


def _linear_loss(x: torch.Tensor, linear: nn.Linear, original: torch.Tensor) -> Callable[[], float]:
    """The squared error at the output of one linear layer, from the Gram matrix of all its inputs."""
    tokens = x.reshape(-1, x.shape[-1]).float()
    gram = tokens.t() @ tokens

    def loss() -> float:
        difference = linear.weight.detach().float() - original.float()
        return float(((difference @ gram) * difference).sum())

    return loss


def _rows_of(kwargs: Mapping[str, Any], rows: slice, *, blocks: int) -> dict[str, Any]:
    """The arguments for some of the blocks: whatever has one row for each block is cut, the rest is shared."""

    def cut(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(cut, value))
        is_per_block = isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == blocks
        return value[rows] if is_per_block else value

    return {name: cut(value) for name, value in kwargs.items()}
