"""A model's tokenizer with its chat template: text -> ids with offsets, messages -> text.

Only tokenizers of the Rust `tokenizers` library serve, because the counted positions are found by the
character offsets that it returns. Ids never come from anywhere else, so a BOS token is never added twice:
the chat template alone decides about it, and the other templates ask `bos_ids`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from davir_ray.config import TokensConfig
from davir_ray.corpus.example import Message
from davir_ray.errors import ModelError, RecipeError, RowError
from davir_ray.schema import Status
from davir_ray.tokens.templates import TEMPLATES
from davir_ray.tokens.tool_calls import AS_GIVEN, PROBE_TOOL, CallForm, call_form

TODAY = datetime(2024, 7, 26)
"""What a template that asks for the date is told (Llama 3.1's own default), so that ids last overnight."""

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
RESERVED = {
    "messages",
    "conversations",
    "tools",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "return_assistant_tokens_mask",
    "strftime_now",
}
MARK = "davirMARKdavir"
"""Stands for an answer where a template's own text has to be told from it."""

Span = tuple[int, int]
Tools = Sequence[dict[str, Any]] | None
Variables = Mapping[str, Any] | None


@dataclass(frozen=True)
class Tokenizer:
    """A loaded tokenizer.

    template: `chat`, `alpaca` or `plain`. template_kwargs: what the chat template gets besides the messages.
    """

    path: str
    hf: PreTrainedTokenizerBase
    template: str
    template_kwargs: Mapping[str, Any]

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token string, added ones included, with its id."""
        return dict(self.hf.get_vocab())

    @cached_property
    def size(self) -> int:
        """One more than the highest id."""
        return max(self.vocabulary.values()) + 1

    @cached_property
    def bos_ids(self) -> tuple[int, ...]:
        """What the tokenizer itself puts before a text: the BOS token, or nothing."""
        with_special = self.hf.backend_tokenizer.encode("a").ids
        bare = self.hf.backend_tokenizer.encode("a", add_special_tokens=False).ids
        starts = range(len(with_special) - len(bare) + 1)
        first = next((i for i in starts if with_special[i : i + len(bare)] == bare), 0)
        return tuple(with_special[:first])

    @cached_property
    def markers(self) -> frozenset[str]:
        """Tokens that stand for themselves in text, such as `<|im_end|>`."""
        added = (token.content for token in self.hf.added_tokens_decoder.values())
        return frozenset(text for text in added if text.strip())

    @cached_property
    def marker_lengths(self) -> tuple[int, ...]:
        """The lengths of markers, longest first. Gemma has thousands of markers of few lengths."""
        return tuple(sorted({len(marker) for marker in self.markers}, reverse=True))

    def marker_at(self, text: str, start: int) -> str:
        """Return the longest marker that begins at `start`, or nothing."""
        found = (text[start : start + length] for length in self.marker_lengths)
        return next((piece for piece in found if piece in self.markers), "")

    def marker_before(self, text: str, end: int) -> str:
        """Return the longest marker that ends at `end`, or nothing."""
        found = (text[end - length : end] for length in self.marker_lengths if length <= end)
        return next((piece for piece in found if piece in self.markers), "")

    def chat_template(self, tools: Tools = None) -> str:
        """Return the Jinja text that renders a conversation with these tools."""
        return str(self.hf.get_chat_template(tools=list(tools) if tools else None))

    def chat(
        self,
        messages: Sequence[Message],
        tools: Tools = None,
        prompt: bool = False,
        variables: Variables = None,
    ) -> tuple[str, list[Span]]:
        """Render with the chat template; also the character spans that it marks as generated, if any.

        prompt: end with the header of an assistant turn. variables: what the row gives to the template, before
        `template_kwargs`. Raises `RowError` where the template refuses.
        """
        template = self.chat_template(tools)
        if reserved := RESERVED & set(variables or {}):
            named = ", ".join(sorted(reserved))
            raise RowError(
                Status.BAD_FORMAT, f"column `chat_template_kwargs`: {named} is set by davir_ray itself"
            )
        try:
            texts, spans = _render(
                [list(messages)],
                tools=list(tools) if tools else None,
                chat_template=template,
                return_assistant_tokens_mask=bool(GENERATION.search(template)),
                add_generation_prompt=prompt,
                **{**self._template_variables, **(variables or {})},
            )
        except Exception as error:
            # A template is a program of the model's author: whatever it raises is about this row.
            reason = f"the chat template refused the row: {type(error).__name__}: {error}"
            raise RowError(Status.TEMPLATE_ERROR, reason) from error
        return texts[0], spans[0] if spans else []

    def call_form(self, tools: Tools = None) -> CallForm:
        """Tell how the chat template takes tool calls."""
        template = self.chat_template(tools)
        if template not in self._call_forms:
            self._call_forms[template] = call_form(lambda messages: self.chat(messages, tools))
        return self._call_forms[template]

    def call_forms(self) -> tuple[CallForm, CallForm]:
        """Tell how rows without tools, and rows with some, are to bring their calls."""
        if self.template != "chat":
            return AS_GIVEN, AS_GIVEN
        return self.call_form(), self.call_form([PROBE_TOOL])

    @cached_property
    def _call_forms(self) -> dict[str, CallForm]:
        return {}

    def reads(self, key: str) -> bool:
        """Tell whether the template looks at a key of a message, or at a variable of this name."""
        if self.template != "chat":
            return False
        if key not in self._reads:
            self._reads[key] = self._names(key) or self._writes(key)
        return self._reads[key]

    @cached_property
    def _reads(self) -> dict[str, bool]:
        return {}

    def _names(self, key: str) -> bool:
        templates = self.hf.chat_template
        texts = templates.values() if isinstance(templates, dict) else [templates]
        return any(re.search(rf"(?<!\w){re.escape(key)}(?!\w)", str(text)) for text in texts)

    def _writes(self, key: str) -> bool:
        """Tell whether a value under this key comes out, as where messages are written whole as JSON."""
        probe = {"role": "user", "content": "a", key: MARK}, {"role": "assistant", "content": "b", key: MARK}
        try:
            return MARK in self.chat(probe)[0]
        except RowError:
            return False

    @cached_property
    def closing(self) -> str:
        """What the chat template puts after a last answer to end it: white space and markers, or nothing.

        Raises `RowError` where the template cannot render a question and its answer.
        """
        text, _ = self.chat(({"role": "user", "content": "a"}, {"role": "assistant", "content": MARK}))
        _, found, after = text.rpartition(MARK)
        if not found:
            raise RowError(Status.TEMPLATE_ERROR, "it leaves the answer out where contents are plain text")
        end = self.after_marker(after, 0)
        while end is not None and (marker := self.marker_at(after, end)):
            end += len(marker)
        return after[:end] if end else ""

    def after_marker(self, text: str, position: int) -> int | None:
        """Return where the marker ends that follows `position`, with nothing but white space between them."""
        while position < len(text) and text[position].isspace():
            position += 1
        marker = self.marker_at(text, position)
        return position + len(marker) if marker else None

    @cached_property
    def _template_variables(self) -> dict[str, Any]:
        return {**self.hf.special_tokens_map, "strftime_now": TODAY.strftime, **self.template_kwargs}

    def encode(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Turn text into ids [T] and the characters [T, 2] that each token covers; adds no special tokens."""
        try:
            encoding = self.hf.backend_tokenizer.encode(text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise RowError(Status.BAD_TEXT, f"the tokenizer cannot take the text: {error}") from error
        return np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int64).reshape(-1, 2)

    def decode(self, ids: Sequence[int] | NDArray[np.int32]) -> str:
        """Turn ids back into text, special tokens included."""
        return str(self.hf.backend_tokenizer.decode([int(i) for i in ids], skip_special_tokens=False))


def _render(*args: Any, **kwargs: Any) -> tuple[list[str], list[list[Span]]]:
    """Call the library's renderer, whose annotation names one text where it returns a list."""
    return render_jinja_template(*args, **kwargs)  # type: ignore[return-value]


def load_tokenizer(path: str, config: TokensConfig) -> Tokenizer:
    """Load the tokenizer of a model folder or hub id. Raises `ModelError` or `RecipeError`."""
    hf = _load(path)
    if not getattr(hf, "is_fast", False):
        raise ModelError(
            f"{path}: its tokenizer ({type(hf).__name__}) gives no character offsets; "
            "a folder with a tokenizer.json is needed"
        )
    hf.backend_tokenizer.no_truncation()
    hf.backend_tokenizer.no_padding()
    name = config.template
    if name not in TEMPLATES:
        hf.chat_template, name = _read_template(name), "chat"
    tokenizer = Tokenizer(path, hf, name, dict(config.chat_template_kwargs))
    _check_template(tokenizer)
    return tokenizer


def tokenizer_identity(tokenizer: Tokenizer) -> str:
    """Hash everything that decides which ids a text gets, to 32 hexadecimal digits.

    `max_length`, `truncation` and `score_on` are no part of it: they decide which ids are kept and count.
    """
    parts = {
        "tokenizer": tokenizer.hf.backend_tokenizer.to_str(),
        "special_tokens": tokenizer.hf.special_tokens_map,
        "template": tokenizer.template,
        "chat_template": tokenizer.hf.chat_template if tokenizer.template == "chat" else None,
        "chat_template_kwargs": tokenizer.template_kwargs,
        "today": TODAY.isoformat(),
        "rules": 2,  # raised when rows, alpaca, plain or the views change what they become
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return blake2b(text.encode("ascii"), digest_size=16).hexdigest()


def _load(path: str) -> PreTrainedTokenizerBase:
    # Imported here: it brings torch, and workers, who get a loaded tokenizer, do without these seconds.
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: no tokenizer could be loaded from it: {error}") from error


def _read_template(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"tokens.template: {path}: {error}; expected chat, alpaca, plain or the path of a Jinja file"
        ) from error


def _check_template(tokenizer: Tokenizer) -> None:
    if tokenizer.template != "chat":
        if tokenizer.hf.eos_token_id is None:
            raise ModelError(
                f"{tokenizer.path}: template {tokenizer.template} needs an EOS token; it has none"
            )
        return
    if reserved := RESERVED & set(tokenizer.template_kwargs):
        raise RecipeError(
            f"tokens.chat_template_kwargs: {', '.join(sorted(reserved))} is set by davir_ray itself"
        )
    if not tokenizer.hf.chat_template:
        raise ModelError(
            f"{tokenizer.path}: has no chat template; set tokens.template to alpaca, plain "
            "or the path of a Jinja chat template"
        )
    try:
        tokenizer.closing  # noqa: B018
    except RowError as error:
        raise ModelError(
            f"{tokenizer.path}: a question and its answer cannot be rendered: {error.reason}"
        ) from error
