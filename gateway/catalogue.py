"""The models that clients are shown."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from gateway.model import ServedModel
from gateway.violations import Violations
from tidegate.inference.v1 import inference_service_pb2, model_pb2

_DEFAULT_PAGE_SIZE, _MAX_PAGE_SIZE = 100, 1000


def list_models(
    request: inference_service_pb2.ListModelsRequest, models: Mapping[str, ServedModel]
) -> inference_service_pb2.ListModelsResponse:
    """A page of ``models``, by name. Raises ``InvalidRequestError``.

    A page token is the last name of the page before, so that pages stay right while models come and go.
    """
    violations = Violations()
    if not 0 <= request.page_size <= _MAX_PAGE_SIZE:
        violations.add("page_size", f"is not from 0 to {_MAX_PAGE_SIZE}")
    after = _name_of(request.page_token, violations)
    violations.raise_if_any()
    size = request.page_size or _DEFAULT_PAGE_SIZE
    names = sorted(name for name in models if name > after)
    page = names[:size]
    return inference_service_pb2.ListModelsResponse(
        models=[describe(models[name]) for name in page],
        next_page_token=_token_of(page[-1]) if len(names) > size else "",
    )


def describe(model: ServedModel) -> model_pb2.Model:
    """The model in its public form."""
    return model_pb2.Model(
        name=model.name,
        limits=model_pb2.ModelLimits(
            context_length=model.context_length,
            max_output_tokens=model.max_output_tokens,
            default_max_output_tokens=model.default_max_output_tokens,
            vocabulary_size=model.vocabulary_size,
            kv_pool_token_count=model.kv_pool_tokens,
        ),
        digests=model_pb2.ModelDigests(
            checkpoint_sha256=model.checkpoint_sha256,
            tokenizer_sha256=model.tokenizer_sha256,
            chat_template_sha256=model.chat_template_sha256,
        ),
        capabilities=model_pb2.ModelCapabilities(
            chat=bool(model.chat_template_sha256),
            seed=model.supports_seed,
            constraint_kinds=sorted(model.constraint_kinds),
        ),
    )


def _token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_of(page_token: str, violations: Violations) -> str:
    try:
        return base64.b64decode(page_token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        violations.add("page_token", "is not a next_page_token of this method")
        return ""
